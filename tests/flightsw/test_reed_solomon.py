import ctypes
from ctypes.util import find_library

import pytest
import reedsolo
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import CodingError
from flightsw.ports import Random
from flightsw.wire.reed_solomon import (
    DATA_BYTES,
    ERRORS_MAX,
    PARITY_BYTES,
    TO_CONVENTIONAL,
    TO_DUAL_BASIS,
    WORD_BYTES,
    ReedSolomon,
)

CONVENTIONAL = ReedSolomon()
DUAL = ReedSolomon(dual_basis=True)
CODES = [pytest.param(CONVENTIONAL, id="conventional"), pytest.param(DUAL, id="dual basis")]
ORACLE = reedsolo.RSCodec(PARITY_BYTES, nsize=WORD_BYTES, fcr=112, prim=0x187, generator=173)  # 173 is α^11
SEEDS = st.integers(0, 2**32)


def word_of(code: ReedSolomon, data: bytes) -> bytes:
    return data + code.parity(data)


def damaged(word: bytes, errors_count: int, chance: Random) -> bytes:
    noisy = bytearray(word)
    for place in chance.sample(range(len(word)), errors_count):
        noisy[place] ^= chance.randrange(1, 256)
    return bytes(noisy)


# -- others say the same


@given(st.binary(min_size=1, max_size=DATA_BYTES))
@settings(max_examples=20, deadline=None)
def test_parity_is_that_of_reedsolo(data):
    assert word_of(CONVENTIONAL, data) == bytes(ORACLE.encode(data))


def test_reedsolo_corrects_our_words_as_we_do():
    chance = Random(1)
    word = word_of(CONVENTIONAL, chance.randbytes(DATA_BYTES))
    noisy = damaged(word, ERRORS_MAX, chance)
    assert CONVENTIONAL.correct(noisy) == word == bytes(ORACLE.decode(noisy)[1])


def libfec() -> ctypes.CDLL:
    name = find_library("fec")
    if name is None:
        pytest.skip("missing tool: libfec (Debian and Ubuntu: apt-get install libfec0)")
    return ctypes.CDLL(name)


@pytest.mark.parametrize(
    ("code", "encode", "decode"),
    [
        pytest.param(CONVENTIONAL, "encode_rs_8", "decode_rs_8", id="conventional"),
        pytest.param(DUAL, "encode_rs_ccsds", "decode_rs_ccsds", id="dual basis"),
    ],
)
@pytest.mark.parametrize("fill", [0, 100, 222])
def test_parity_and_correction_are_those_of_libfec(code, encode, decode, fill):
    library = libfec()
    chance = Random(fill)
    data = chance.randbytes(DATA_BYTES - fill)
    parity = ctypes.create_string_buffer(PARITY_BYTES)
    getattr(library, encode)(data, parity, fill)
    assert code.parity(data) == parity.raw
    word = data + parity.raw
    noisy = damaged(word, ERRORS_MAX, chance)
    theirs = ctypes.create_string_buffer(noisy, len(noisy))
    assert getattr(library, decode)(theirs, None, 0, fill) == ERRORS_MAX
    assert code.correct(noisy) == word == theirs.raw


# -- the two representations


def test_the_dual_basis_is_the_one_of_the_standard():
    """By its definition: bit i of a symbol u, most significant first, is the trace of u β^i with β = α^117."""
    powers = [1]
    for _ in range(254):
        powers.append(powers[-1] << 1 ^ (0x187 if powers[-1] & 0x80 else 0))
    for logarithm, symbol in enumerate(powers):
        bits = 0
        for index in range(8):
            trace = 0
            for squared in range(8):
                trace ^= powers[(logarithm + 117 * index) * 2**squared % 255]
            assert trace in (0, 1)
            bits = bits << 1 | trace
        assert TO_DUAL_BASIS[symbol] == bits
    assert TO_DUAL_BASIS[0] == 0


def test_the_two_maps_of_symbols_undo_each_other():
    everything = bytes(range(256))
    assert everything.translate(TO_DUAL_BASIS).translate(TO_CONVENTIONAL) == everything
    assert sorted(TO_DUAL_BASIS) == list(everything)


@given(st.binary(min_size=1, max_size=DATA_BYTES))
@settings(max_examples=20, deadline=None)
def test_a_word_of_one_representation_is_a_word_of_the_other(data):
    mapped = word_of(CONVENTIONAL, data).translate(TO_DUAL_BASIS)
    assert mapped == word_of(DUAL, data.translate(TO_DUAL_BASIS))


# -- correction


@pytest.mark.parametrize("code", CODES)
@given(data=st.binary(min_size=1, max_size=DATA_BYTES), errors_count=st.integers(0, ERRORS_MAX), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_up_to_sixteen_wrong_symbols_are_corrected_in_a_word_of_any_length(code, data, errors_count, seed):
    word = word_of(code, data)
    assert code.correct(damaged(word, errors_count, Random(seed))) == word


@pytest.mark.parametrize("code", CODES)
def test_each_single_error_is_corrected_at_each_place(code):
    word = word_of(code, bytes(range(223)))
    for place in range(WORD_BYTES):
        noisy = bytearray(word)
        noisy[place] ^= 1 + place * 37 % 255
        assert code.correct(bytes(noisy)) == word


def test_each_value_of_an_error_is_corrected():
    word = word_of(CONVENTIONAL, b"telemetry")
    for value in range(1, 256):
        assert CONVENTIONAL.correct(bytes([word[0] ^ value]) + word[1:]) == word


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("length", [1, 40, DATA_BYTES])
@pytest.mark.parametrize("errors_count", [17, 18, 24, 33])
def test_more_than_sixteen_wrong_symbols_are_refused(code, length, errors_count):
    chance = Random(errors_count)
    for _ in range(8):
        word = word_of(code, chance.randbytes(length))
        with pytest.raises(CodingError):
            code.correct(damaged(word, errors_count, chance))


@pytest.mark.parametrize("errors_count", [1, ERRORS_MAX])
def test_errors_that_would_lie_in_the_virtual_fill_are_refused(errors_count):
    data = b"shortened"
    fill = damaged(bytes(DATA_BYTES - len(data) - 1), errors_count - 1, Random(errors_count)) + b"\x01"
    with pytest.raises(CodingError, match="fill"):
        CONVENTIONAL.correct(data + CONVENTIONAL.parity(fill + data))


@given(st.binary(min_size=PARITY_BYTES + 1, max_size=WORD_BYTES))
@settings(max_examples=40, deadline=None)
def test_noise_gives_a_code_word_or_a_coding_error(noise):
    try:
        word = CONVENTIONAL.correct(noise)
    except CodingError:
        return
    assert word == word_of(CONVENTIONAL, word[:-PARITY_BYTES])


# -- blocks


@given(
    depth=st.integers(1, 5),
    blocks_count=st.integers(1, 4),
    symbols_count=st.integers(1, DATA_BYTES),
    seed=SEEDS,
)
@settings(max_examples=30, deadline=None)
def test_parity_of_blocks_is_that_of_their_words(depth, blocks_count, symbols_count, seed):
    data = Random(seed).randbytes(depth * blocks_count * symbols_count)
    parity = CONVENTIONAL.parity(data, depth, blocks_count)
    for block in range(blocks_count):
        of_block = data[block * depth * symbols_count :][: depth * symbols_count]
        for word in range(depth):
            expected = CONVENTIONAL.parity(of_block[word::depth])
            assert parity[block * depth * PARITY_BYTES :][: depth * PARITY_BYTES][word::depth] == expected


def test_virtual_fill_is_zeros_that_are_not_sent():
    data = b"shortened"
    assert CONVENTIONAL.parity(data) == CONVENTIONAL.parity(bytes(DATA_BYTES - len(data)) + data)


@pytest.mark.parametrize(("length", "depth"), [(0, 1), (DATA_BYTES + 1, 1), (7, 5)])
def test_blocks_that_are_none_are_our_own_mistake(length, depth):
    with pytest.raises(AssertionError):
        CONVENTIONAL.parity(bytes(length), depth)
