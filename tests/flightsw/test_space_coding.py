import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.config import InterfaceConfig
from flightsw.errors import CodingError, ConfigError, FrameError
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import ContactPlan
from flightsw.ports import Random
from flightsw.wire.crc import crc32c
from flightsw.wire.framing import FRAME_BYTES_MAX, coding
from flightsw.wire.randomiser import randomise
from flightsw.wire.reed_solomon import DATA_BYTES, ReedSolomon
from flightsw.wire.space_coding import DEPTHS, MARKER, SpaceCoding

NAMES = [f"ccsds-rs-{depth}{basis}" for basis in ("", "-dual") for depth in DEPTHS]
HEAD_BYTES = 14  # marker and five lengths
each_coding = pytest.mark.parametrize("code", [coding(name) for name in NAMES], ids=lambda code: code.name)
PAYLOADS = st.builds(lambda length, seed: Random(seed).randbytes(length), st.integers(1, 2500), st.integers(0, 2**32))
SEEDS = st.integers(0, 2**32)


def struck(coded: bytes, places: list[int], chance: Random) -> bytes:
    noisy = bytearray(coded)
    for place in places:
        noisy[place] ^= chance.randrange(1, 256)
    return bytes(noisy)


def with_bit_errors(coded: bytes, rate: float, chance: Random) -> bytes:
    noisy = bytearray(coded)
    for bit in range(8 * len(coded)):
        if chance.random() < rate:
            noisy[bit // 8] ^= 0x80 >> bit % 8
    return bytes(noisy)


def places_by_word(code: SpaceCoding, coded: bytes) -> list[list[int]]:
    """The places of each code word in a frame, from the layout in the module's docstring."""
    depth = int(code.name.split("-")[2])
    block_bytes = 255 * depth
    words = []
    for start in range(HEAD_BYTES, len(coded), block_bytes):
        end = min(start + block_bytes, len(coded))
        words += [list(range(start + word, end, depth)) for word in range(depth)]
    return words


# -- the layout


def test_a_known_frame():
    """Marker; the rest less the randomiser: five lengths, length, payload and CRC, parity of the shortened word."""
    coded = coding("ccsds-rs-1").encode(b"123456789")
    plain = randomise(coded[4:])
    data = b"\x00\x09123456789" + crc32c(b"\x00\x09123456789").to_bytes(4, "big")
    assert coded[:4].hex() == "1acffc1d"
    assert plain == b"\x00\x09" * 5 + data + ReedSolomon().parity(data)
    assert coded[4:6].hex() == "ff41", "ff48 of the randomiser and the length 0009"


def test_interleaving_deals_the_symbols_of_a_block_in_turn():
    code = coding("ccsds-rs-3")
    plain = randomise(code.encode(b"A" * 4)[4:])[10:]
    data = plain[:12]
    assert data == b"\x00\x04AAAA" + crc32c(b"\x00\x04AAAA").to_bytes(4, "big") + bytes(2), "filled to a multiple of 3"
    for word in range(3):
        assert plain[12 + word :: 3] == ReedSolomon().parity(data[word::3])


def test_the_dual_basis_is_another_representation_of_the_same_code():
    data = randomise(coding("ccsds-rs-1-dual").encode(b"telemetry")[4:])[10:]
    assert data[-32:] == ReedSolomon(dual_basis=True).parity(data[:-32])


@each_coding
@given(payload=PAYLOADS)
@settings(max_examples=15, deadline=None)
def test_a_payload_comes_back(code, payload):
    coded = code.encode(payload)
    assert len(coded) == code.coded_bytes(len(payload))
    assert code.decode(coded) == payload
    assert code.correct(coded) == (payload, 0)
    assert code.deframer().feed(coded) == [payload]


@pytest.mark.parametrize("depth", DEPTHS)
def test_lengths_around_full_blocks_have_frames(depth):
    code = coding(f"ccsds-rs-{depth}")
    for full_count in (1, 2):
        for length in range(DATA_BYTES * depth * full_count - 8, DATA_BYTES * depth * full_count):
            payload = bytes(length)
            coded = code.encode(payload)
            assert len(coded) == code.coded_bytes(length)
            assert code.decode(coded) == payload


# -- correction


@each_coding
@given(payload=PAYLOADS, errors_count=st.integers(1, 16), seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_sixteen_wrong_symbols_in_each_code_word_are_corrected(code, payload, errors_count, seed):
    chance = Random(seed)
    coded = code.encode(payload)
    places = [place for word in places_by_word(code, coded) for place in chance.sample(word, errors_count)]
    assert code.correct(struck(coded, places, chance)) == (payload, len(places))


@each_coding
@given(payload=PAYLOADS, seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_burst_of_sixteen_times_the_depth_is_corrected_wherever_it_strikes(code, payload, seed):
    chance = Random(seed)
    coded = code.encode(payload)
    burst_bytes = 16 * len(places_by_word(code, coded[: HEAD_BYTES + 1]))
    start = chance.randrange(len(coded) - burst_bytes + 1)
    places = list(range(start, start + burst_bytes))
    assert code.correct(struck(coded, places, chance)) == (payload, burst_bytes)


@each_coding
@given(payload=PAYLOADS, errors_count=st.integers(17, 33), seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_more_than_sixteen_wrong_symbols_in_a_word_never_give_a_wrong_payload(code, payload, errors_count, seed):
    chance = Random(seed)
    coded = code.encode(payload)
    word = chance.choice(places_by_word(code, coded))
    noisy = struck(coded, chance.sample(word, min(errors_count, len(word))), chance)
    try:
        delivered = code.decode(noisy)
    except (CodingError, FrameError):
        return
    assert delivered == payload, "only when all that was struck was parity or fill"


def test_a_word_with_seventeen_wrong_data_symbols_is_refused():
    chance = Random(3)
    code = coding("ccsds-rs-1")
    coded = code.encode(bytes(100))
    with pytest.raises(CodingError, match="more than"):
        code.decode(struck(coded, list(range(20, 37)), chance))


def test_a_frame_whose_words_hold_but_whose_crc_does_not_is_refused():
    code = coding("ccsds-rs-1")
    data = b"\x00\x04abcd" + bytes(4)
    coded = MARKER + randomise(b"\x00\x04" * 5 + data + ReedSolomon().parity(data))
    with pytest.raises(FrameError, match="CRC-32C"):
        code.decode(coded)
    assert code.deframer().feed(coded) == []


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_only_wire_errors_escape_from_noise(noise):
    for code in (coding("ccsds-rs-1"), coding("ccsds-rs-5-dual")):
        with pytest.raises((FrameError, CodingError)):
            code.decode(noise)
        assert code.deframer().feed(noise) == []


def test_what_has_no_frame_is_refused():
    code = coding("ccsds-rs-5")
    with pytest.raises(FrameError, match="empty"):
        code.encode(b"")
    coded = code.encode(b"payload")
    for length in (0, 3, HEAD_BYTES, HEAD_BYTES + 32 * 5, len(coded) - 1, len(coded) + 1):
        with pytest.raises(FrameError, match="none of this length"):
            code.decode((coded + b"\0")[:length])


@each_coding
def test_the_longest_frame_passes_and_one_byte_more_does_not(code):
    length = max(length for length in range(56_000, 58_000) if code.coded_bytes(length) <= FRAME_BYTES_MAX)
    longest = Random(5).randbytes(length)
    coded = code.encode(longest)
    assert FRAME_BYTES_MAX - 165 <= len(coded) <= FRAME_BYTES_MAX
    assert code.decode(coded) == longest
    with pytest.raises(FrameError, match="65536"):
        code.encode(longest + b"x")
    with pytest.raises(FrameError, match="at most 65536"):
        code.decode(bytes(FRAME_BYTES_MAX + 1))


# -- streams


@given(
    payloads=st.lists(PAYLOADS, max_size=4),
    name=st.sampled_from(NAMES),
    rate=st.sampled_from([0.0, 1e-4, 1e-3, 1e-2]),
    seed=SEEDS,
)
@settings(max_examples=25, deadline=None)
def test_a_stream_with_noise_between_and_inside_delivers_only_what_was_sent(payloads, name, rate, seed):
    chance = Random(seed)
    code = coding(name)
    stream = b"".join(
        chance.randbytes(chance.randrange(300)) + with_bit_errors(code.encode(payload), rate, chance)
        for payload in payloads
    )
    deframer = code.deframer()
    received: list[bytes] = []
    while stream:
        length = chance.randrange(1, 1500)
        received += deframer.feed(stream[:length])
        stream = stream[length:]
    left = iter(payloads)
    assert all(payload in left for payload in received), "sent ones, in order, none twice"
    assert deframer.accepted_count == len(received)
    if rate <= 1e-3:
        assert received == payloads, "noise that looks like a marker is counted, and costs nobody a frame"
    assert deframer.corrected_count <= len(received) * (rate > 0)


def test_a_stream_of_single_bytes_gives_the_payloads_and_counts_the_corrected():
    chance = Random(7)
    code = coding("ccsds-rs-2")
    payloads = [b"first", b"second" * 100, b"third"]
    frames = [code.encode(payload) for payload in payloads]
    frames[1] = struck(frames[1], [2, 60, 61, 62, 400], chance)
    frames[1] = bytes([frames[1][0] ^ 1]) + frames[1][1:2] + frames[0][2:3] + frames[1][3:]
    deframer = code.deframer()
    received = [payload for byte in b"".join(frames) for payload in deframer.feed(bytes([byte]))]
    assert received == payloads
    assert (deframer.accepted_count, deframer.corrected_count, deframer.rejected_count) == (3, 1, 0)


@pytest.mark.parametrize("wrong_bits", range(6))
def test_a_marker_is_taken_with_as_many_wrong_bits_as_configured(wrong_bits):
    for tolerated in (0, 3, 5):
        code = SpaceCoding(1, frame_bytes_max=FRAME_BYTES_MAX, marker_bit_errors_max=tolerated)
        coded = code.encode(b"payload")
        bits = Random(wrong_bits).sample(range(32), wrong_bits)
        marker = int.from_bytes(MARKER, "big") ^ sum(1 << bit for bit in bits)
        for noise in (b"", b"\xaa" * 5000):
            delivered = code.deframer().feed(noise + marker.to_bytes(4, "big") + coded[4:])
            assert delivered == ([b"payload"] if wrong_bits <= tolerated else [])


def test_up_to_eight_wrong_bits_in_the_lengths_are_outvoted_and_more_are_no_frame():
    code = coding("ccsds-rs-1")
    coded = code.encode(b"payload")
    for wrong_count in (1, 8, 9):
        noisy = bytearray(coded)
        for bit in range(wrong_count):  # spread over copies and bits
            noisy[4 + 2 * (bit % 5) + bit % 2] ^= 1 << bit % 8
        delivered = code.deframer().feed(bytes(noisy))
        assert delivered == ([b"payload"] if wrong_count <= 8 else [])


def test_a_damaged_frame_costs_itself_alone():
    chance = Random(11)
    code = coding("ccsds-rs-1")
    first, second, third = (code.encode(payload) for payload in (b"first", b"second", b"third"))
    deframer = code.deframer()
    assert deframer.feed(first + struck(second, list(range(14, 40)), chance) + third) == [b"first", b"third"]
    assert (deframer.accepted_count, deframer.corrected_count, deframer.rejected_count) == (2, 0, 1)


@pytest.mark.parametrize(("lost_at", "lost"), [(-500, 500), (500, 1), (200, 600)])
def test_lost_bytes_cost_their_frame_and_the_stream_is_in_step_again(lost_at, lost):
    code = coding("ccsds-rs-5")
    first, second, third = (code.encode(Random(seed).randbytes(900)) for seed in range(3))
    deframer = code.deframer()
    stream = first[:lost_at] + first[lost_at:][lost:] + second + third
    assert deframer.feed(stream) == [code.decode(second), code.decode(third)]
    assert deframer.rejected_count == 1


@pytest.mark.parametrize("lost", [1, 4, 30, 80])
def test_bytes_lost_at_the_end_of_a_frame_are_corrected_and_cost_the_next_nothing(lost):
    code = coding("ccsds-rs-5")
    payloads = [Random(seed).randbytes(900) for seed in range(3)]
    first, second, third = (code.encode(payload) for payload in payloads)
    deframer = code.deframer()
    assert deframer.feed(first[:-lost] + second) + deframer.feed(third) == payloads
    assert (deframer.accepted_count, deframer.corrected_count, deframer.rejected_count) == (3, 1, 0)


def test_a_receiver_that_joins_in_the_middle_is_in_step_at_the_next_frame():
    code = coding("ccsds-rs-4")
    deframer = code.deframer()
    assert deframer.feed(code.encode(b"first")[3:] + code.encode(b"second")) == [b"second"]
    assert deframer.rejected_count == 0


def test_noise_fills_no_memory():
    chance = Random(13)
    code = coding("ccsds-rs-1")
    deframer = code.deframer()
    for _ in range(20):
        assert deframer.feed(chance.randbytes(20_000)) == []
        assert len(deframer._buffer) < HEAD_BYTES
    assert deframer.feed(code.encode(b"after")) == [b"after"]


def test_a_frame_that_never_ends_is_bounded_by_the_longest():
    code = coding("ccsds-rs-1")
    deframer = code.deframer()
    assert deframer.feed(code.encode(bytes(57_000))[:1000]) == []
    for _ in range(80):
        assert deframer.feed(bytes(1000)) == []
        assert len(deframer._buffer) < FRAME_BYTES_MAX
    assert deframer.rejected_count == 1
    assert deframer.feed(code.encode(b"after")) == [b"after"]


# -- users


def test_segments_that_are_too_long_for_the_coding_are_refused_by_name():
    interface = InterfaceConfig(index=0, name="radio", coding="ccsds-rs-1", segment_bytes=60_000)
    with pytest.raises(ConfigError, match=r"interface 'radio': segment_bytes: .* exceed 65536 bytes"):
        BundleAgent(1, ContactPlan([]), (interface,), session_base=0)
