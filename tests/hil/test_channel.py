"""One direction of a link: values, delay, order, windows, outages, acquisition, streams and counts."""

import re
import tomllib
from collections.abc import Callable
from fractions import Fraction
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.ports import Random
from flightsw.wire.framing import coding
from hil.bench.scenario import LinkSpec
from hil.channel.bit_errors import mean_bit_error_rate
from hil.channel.direction import ChannelCounts, Direction
from hil.channel.impairments import Burst, Impairments
from hil.channel.light_time import LIGHT_M_S
from hil.channel.link import Link, LinkState

S = 1_000_000_000
FAST = Impairments(rate_bps=1e12)
FRAME = bytes(100)


def random_for(name: str) -> Random:
    return Random(f"7/{name}")


def direction(impairments: Impairments = FAST, name: str = "isl-03-04") -> Direction:
    return Direction(name, impairments, random_for)


def in_flight_balance(counts: ChannelCounts) -> int:
    gone = counts.delivered + counts.lost + counts.blocked() + counts.queue_dropped + counts.flushed
    return counts.sent + counts.duplicated - gone


# Values


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate_bps", 0),
        ("loss", 1.5),
        ("bit_error_rate", 0.6),
        ("jitter_s", -1),
        ("duplicate", -0.1),
        ("reorder", 2),
        ("acquisition_s", [12.0, -1.0]),
        ("queue_frames_max", -1),
        ("burst", {"p_good_to_bad": 0.0, "p_bad_to_good": 0.1, "bit_error_rate_bad": 0.1}),
        ("acquisition_s", [15.0, 12.0]),
        ("lost", 0.1),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({"rate_bps": 9600, field: value}, Impairments)


def test_holding_frames_back_needs_a_delay() -> None:
    with pytest.raises(ValueError, match="reorder_delay_s"):
        Impairments(rate_bps=1.0, reorder=0.1)


def test_values_made_in_python_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"link isl-03-04: .*loss"):
        direction(Impairments(rate_bps=1.0, loss=2.0))
    link = direction()
    with pytest.raises(ConfigError, match=r"link isl-03-04: .*jitter_s"):
        link.set_impairments(Impairments(rate_bps=1.0, jitter_s=-1.0))
    assert link.impairments == FAST


def test_the_document_names_every_parameter_and_its_presets_load() -> None:
    document = (Path(__file__).parents[2] / "docs" / "channel.md").read_text(encoding="utf-8")
    for name in Impairments.__struct_fields__:
        assert f"| `{name}" in document or name == "burst"
    for name in Burst.__struct_fields__:
        assert f"| `burst.{name}`" in document
    tables = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", document, flags=re.DOTALL)]
    presets = [msgspec.convert(table, Impairments) for table in tables if "links" not in table]
    assert len(presets) == 4
    (coded,) = [msgspec.convert(table["links"]["ground"], LinkSpec) for table in tables if "links" in table]
    assert coding(coded.coding).name == "ccsds-rs-1"
    assert mean_bit_error_rate(presets[-1]) == pytest.approx(1e-5, rel=1e-3)


# Delay


@given(
    range_km=st.floats(0, 400_000),
    rate_bps=st.floats(1, 1e12),
    size=st.integers(0, 5000),
    now_ns=st.integers(0, 10**18),
)
def test_delay_is_serialisation_plus_light_time(range_km: float, rate_bps: float, size: int, now_ns: int) -> None:
    link = direction(Impairments(rate_bps=rate_bps))
    link.set_range([0], [range_km])
    ((_, arrival_ns),) = link.transmit(bytes(size), now_ns)
    serialisation_ns = ceil(Fraction(size * 8 * S) / Fraction(rate_bps))
    light_ns = Fraction(range_km) * 1000 * S / LIGHT_M_S
    assert abs(arrival_ns - now_ns - serialisation_ns - light_ns) <= Fraction(501, 1000)


def test_the_delay_of_the_ring_is_the_published_one() -> None:
    link = direction(Impairments(rate_bps=100e9))
    link.set_range([0], [3560.0])
    # 3,560 km / 299,792.458 km/s = 11.874 881 9 ms, and 8,920 bits at 100 Gbit/s = 89.2 ns, rounded up.
    assert link.transmit(bytes(1115), 5 * S) == [(bytes(1115), 5 * S + 11_874_882 + 90)]


def test_the_range_is_linear_between_samples_and_holds_outside() -> None:
    link = direction()
    link.set_range([10 * S, 20 * S, 40 * S], [1000.0, 2000.0, 1000.0])
    for at_s, range_km in [(0, 1000), (10, 1000), (15, 1500), (20, 2000), (35, 1250), (40, 1000), (99, 1000)]:
        ((_, arrival_ns),) = link.transmit(b"", at_s * S)
        assert arrival_ns == at_s * S + round(range_km * 1e12 / LIGHT_M_S)


def test_the_range_may_be_a_function_of_time() -> None:
    link = direction()
    link.visibility.set_range_function(lambda at_ns: 300.0 * at_ns / S)
    assert link.transmit(b"", 2 * S)[0][1] == 2 * S + round(600e12 / LIGHT_M_S)


@pytest.mark.parametrize(
    ("times_ns", "ranges_km", "reason"),
    [
        ([], [], "at least one"),
        ([1, 2], [1.0], "as many"),
        ([2, 2], [1.0, 1.0], "increasing"),
        ([1], [-1.0], ">= 0 km"),
    ],
)
def test_a_wrong_range_table_is_refused(times_ns: list[int], ranges_km: list[float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        direction().set_range(times_ns, ranges_km)


def test_the_transmitter_sends_one_frame_after_the_other() -> None:
    link = direction(Impairments(rate_bps=8000))  # 100 bytes take 0.1 s
    arrivals_ns = [link.transmit(FRAME, 0)[0][1] for _ in range(3)]
    assert arrivals_ns == [S // 10, 2 * S // 10, 3 * S // 10]
    assert link.transmit(FRAME, S)[0][1] == S + S // 10


def test_a_full_transmit_queue_drops_and_counts() -> None:
    link = direction(Impairments(rate_bps=8000, queue_frames_max=2))
    sent = [bool(link.transmit(FRAME, 0)) for _ in range(5)]
    assert sent == [True, True, True, False, False]  # one in the transmitter, two waiting
    assert link.counts.queue_dropped == 2
    assert link.transmit(FRAME, S // 10), "the first frame has left and made room"
    assert not link.transmit(FRAME, S // 10)


# Order


@pytest.mark.parametrize("jitter_s", [0.0, 0.05])
def test_frames_keep_their_order_unless_reordering_is_asked_for(jitter_s: float) -> None:
    link = direction(Impairments(rate_bps=1e9, jitter_s=jitter_s))
    arrivals_ns = [link.transmit(FRAME, i * 1_000_000)[0][1] for i in range(500)]
    assert arrivals_ns == sorted(arrivals_ns)


def test_frames_keep_their_order_when_jitter_ends() -> None:
    link = direction(Impairments(rate_bps=1e12, jitter_s=1000.0))
    jittered_ns = link.transmit(b"", 0)[0][1]
    link.set_impairments(FAST)
    assert link.transmit(b"", 1)[0][1] == jittered_ns > 1_000


def test_jitter_is_uniform_between_nothing_and_its_value() -> None:
    link = direction(Impairments(rate_bps=1e12, jitter_s=0.01))
    extra_ns = [link.transmit(b"", i * S)[0][1] - i * S for i in range(2000)]
    assert min(extra_ns) >= 0
    assert max(extra_ns) < S // 100
    assert abs(sum(extra_ns) / 2000 - S / 200) < 5 * (S / 100) / sqrt(12 * 2000)


def test_a_reordered_frame_is_overtaken_and_holds_up_nobody() -> None:
    link = direction(Impairments(rate_bps=1e12, reorder=0.2, reorder_delay_s=0.5))
    delays_ns = [link.transmit(b"", i * S // 10)[0][1] - i * S // 10 for i in range(1000)]
    assert set(delays_ns) == {0, S // 2}
    assert delays_ns.count(S // 2) == link.counts.reordered
    assert abs(link.counts.reordered - 200) < 5 * sqrt(1000 * 0.2 * 0.8)


# Chance


def test_loss_and_duplication_have_the_asked_rates() -> None:
    link = direction(Impairments(rate_bps=1e12, loss=0.1, duplicate=0.05))
    arrivals = [len(link.transmit(FRAME, i * S)) for i in range(5000)]
    assert abs(arrivals.count(0) - 500) < 5 * sqrt(5000 * 0.1 * 0.9)
    assert abs(arrivals.count(2) - 225) < 5 * sqrt(5000 * 0.045 * 0.955)
    assert (link.counts.lost, link.counts.duplicated) == (arrivals.count(0), arrivals.count(2))


def noise(link: Direction) -> list[list[tuple[bytes, int]]]:
    return [link.transmit(bytes(200), i * S) for i in range(300)]


NOISY = Impairments(rate_bps=1e6, bit_error_rate=1e-3, loss=0.1, jitter_s=0.01, duplicate=0.1)


@pytest.mark.parametrize(
    "change", [{"loss": 0.3}, {"jitter_s": 0.0}, {"duplicate": 0.5}, {"reorder": 0.3, "reorder_delay_s": 0.1}]
)
def test_changing_one_process_never_shifts_the_bit_flips(change: dict[str, float]) -> None:
    plain = [arrivals[0][0] for arrivals in noise(direction(Impairments(rate_bps=1e6, bit_error_rate=1e-3)))]
    changed = noise(direction(msgspec.structs.replace(NOISY, **change)))
    seen = [(arrivals[0][0], plain[i]) for i, arrivals in enumerate(changed) if arrivals]
    assert len(seen) > 150
    assert all(received == expected for received, expected in seen)
    assert any(received != bytes(200) for received, _ in seen)


def test_changing_the_bit_error_rate_never_shifts_the_losses() -> None:
    few, many = direction(NOISY), direction(msgspec.structs.replace(NOISY, bit_error_rate=0.1))
    pairs = list(zip(noise(few), noise(many), strict=True))
    assert all([at for _, at in a] == [at for _, at in b] for a, b in pairs)
    assert few.counts.flipped_bits < many.counts.flipped_bits


def test_changing_one_link_never_shifts_another() -> None:
    def run(other: Impairments) -> tuple[object, ...]:
        made: list[str] = []

        def counted_random_for(name: str) -> Random:
            made.append(name)
            return random_for(name)

        watched, changed = Direction("a", NOISY, counted_random_for), Direction("b", other, counted_random_for)
        arrivals = []
        for i in range(200):
            changed.transmit(bytes(200), i * S)
            arrivals.append(watched.transmit(bytes(200), i * S))
        assert len(made) == len(set(made)), "a stream is made once"
        return (arrivals, watched.counts)

    assert run(FAST) == run(NOISY)


def test_the_two_directions_of_a_link_have_streams_of_their_own() -> None:
    link = Link("isl-03-04", NOISY, random_for)
    assert noise(link.forward) != noise(link.backward)
    named = Direction("isl-03-04/forward", NOISY, random_for)
    assert noise(Link("isl-03-04", NOISY, random_for).forward) == noise(named)


def test_impairments_change_at_run_time_and_flips_go_on_where_they_are() -> None:
    steady, tuned = direction(NOISY), direction(NOISY)
    expected = noise(steady)
    before = [tuned.transmit(bytes(200), i * S) for i in range(100)]
    tuned.set_impairments(msgspec.structs.replace(NOISY, loss=0.0, duplicate=0.0, jitter_s=0.0))
    after = [tuned.transmit(bytes(200), i * S) for i in range(100, 300)]
    assert before == expected[:100]
    assert all(len(arrivals) == 1 for arrivals in after)
    assert all(a[0][0] == b[0][0] for a, b in zip(after, expected[100:], strict=True) if b)


# Windows, outages, acquisition


def passes(link: Direction, now_ns: int) -> bool:
    return bool(link.transmit(b"!", now_ns))


def test_a_window_is_half_open_and_bits_pass_inside_only() -> None:
    link = direction()
    link.add_window(10 * S, 20 * S, [10 * S, 20 * S], [1000.0, 2000.0])
    link.add_window(30 * S, 40 * S)
    seen = [passes(link, at) for at in (0, 10 * S - 1, 10 * S, 20 * S - 1, 20 * S, 25 * S, 30 * S, 40 * S, 99 * S)]
    assert seen == [False, False, True, True, False, False, True, False, False]
    assert link.counts.blocked_no_contact == 6


def test_a_window_has_its_own_range_table() -> None:
    link = direction()
    link.set_range([0], [300.0])
    link.add_window(0, 10 * S, [0, 10 * S], [1000.0, 2000.0])
    link.add_window(20 * S, 30 * S)
    assert link.transmit(b"", 5 * S)[0][1] == 5 * S + round(1500e12 / LIGHT_M_S)
    assert link.transmit(b"", 25 * S)[0][1] == 25 * S + round(300e12 / LIGHT_M_S)


def test_a_frame_passes_only_if_its_last_bit_leaves_before_loss_of_signal() -> None:
    link = direction(Impairments(rate_bps=800))  # 100 bytes take 1 s
    link.add_window(0, 10 * S)
    link.set_range([0], [300_000.0])
    assert link.transmit(FRAME, 9 * S)[0][1] > 10 * S, "in flight at loss of signal, and arrives"
    assert not link.transmit(FRAME, 9 * S + 1), "cut off by loss of signal"
    assert link.counts.blocked_no_contact == 1


def test_queued_frames_cannot_leave_after_loss_of_signal() -> None:
    link = direction(Impairments(rate_bps=800))
    link.add_window(0, 3 * S)
    assert [bool(link.transmit(FRAME, S // 2)) for _ in range(4)] == [True, True, False, False]


def test_acquisition_follows_the_start_of_a_window() -> None:
    link = direction(Impairments(rate_bps=1e12, acquisition_s=(12.0, 12.0)))
    link.add_window(100 * S, 200 * S)
    assert [passes(link, at) for at in (100 * S, 112 * S - 1, 112 * S)] == [False, False, True]
    assert link.counts.blocked_acquiring == 2


def test_an_outage_blocks_and_ends_with_a_new_acquisition() -> None:
    link = direction(Impairments(rate_bps=1e12, acquisition_s=(12.0, 12.0)))
    assert passes(link, 0), "a link without windows starts acquired"
    link.add_outage(10 * S, 20 * S)
    assert [passes(link, at) for at in (10 * S - 1, 10 * S, 20 * S - 1, 20 * S, 32 * S - 1, 32 * S)] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert (link.counts.blocked_outage, link.counts.blocked_acquiring) == (2, 2)


def test_an_outage_over_the_start_of_a_window_delays_its_acquisition() -> None:
    link = direction(Impairments(rate_bps=1e12, acquisition_s=(10.0, 10.0)))
    link.add_window(100 * S, 200 * S)
    link.add_outage(90 * S, 105 * S)
    assert [passes(link, at * S) for at in (95, 101, 110, 114, 115)] == [False, False, False, False, True]
    counts = link.counts
    assert (counts.blocked_no_contact, counts.blocked_outage, counts.blocked_acquiring) == (1, 1, 2)


def test_outages_that_touch_are_one() -> None:
    link = direction(Impairments(rate_bps=1e12, acquisition_s=(5.0, 5.0)))
    for start_s, end_s in [(10, 20), (40, 50), (15, 30), (30, 35)]:
        link.add_outage(start_s * S, end_s * S)
    assert [passes(link, at * S) for at in (9, 10, 34, 39, 40, 54, 55)] == [True, *[False] * 5, True]
    assert (link.counts.blocked_outage, link.counts.blocked_acquiring) == (3, 2)


def test_both_directions_acquire_at_the_same_instant() -> None:
    link = Link("isl-03-04", Impairments(rate_bps=1e12, acquisition_s=(12.0, 15.0)), random_for)
    for start_s in range(0, 1000, 100):
        link.add_window(start_s * S, (start_s + 90) * S)
    first_bits_s = []
    for start_s in range(0, 1000, 100):
        instants = [start_s * S + tenth * S // 10 for tenth in range(160)]
        first = [next(at for at in instants if passes(way, at)) for way in (link.forward, link.backward)]
        assert first[0] == first[1]
        first_bits_s.append(first[0] / S - start_s)
    assert all(12.0 <= first_s <= 15.1 for first_s in first_bits_s)
    assert len(set(first_bits_s)) > 5, "each acquisition draws anew"


def test_traffic_never_shifts_the_acquisitions() -> None:
    def first_bit_ns(is_asked_early: bool) -> int:
        link = direction(Impairments(rate_bps=1e12, acquisition_s=(1.0, 60.0)))
        for start_s in (0, 100, 200):
            link.add_window(start_s * S, (start_s + 90) * S)
        if is_asked_early:
            passes(link, 0)
            passes(link, 150 * S)
        passes(link, 200 * S)
        return link.visibility.until_ns(200 * S)

    assert first_bit_ns(True) == first_bit_ns(False)


def test_directions_that_disagree_on_acquisition_are_refused() -> None:
    slow = Impairments(rate_bps=1e12, acquisition_s=(1.0, 2.0))
    with pytest.raises(ConfigError, match="acquisition_s"):
        Link("isl-03-04", FAST, random_for, backward=slow)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda link: link.add_window(5, 5),
        lambda link: link.add_outage(6, 5),
        lambda link: link.add_window(15, 25),
        lambda link: link.add_window(5, 11),
        lambda link: link.add_window(0, 100),
    ],
)
def test_empty_and_overlapping_intervals_are_refused(wrong: Callable[[Direction], Any]) -> None:
    link = direction()
    link.add_window(10, 20)
    with pytest.raises(ConfigError, match="link isl-03-04"):
        wrong(link)


def test_the_status_of_a_link_is_told_in_the_words_of_the_field() -> None:
    link = Link("isl-03-04", Impairments(rate_bps=1e12, acquisition_s=(10.0, 10.0)), random_for)
    link.add_window(100 * S, 200 * S)
    link.add_outage(150 * S, 160 * S)
    told = [(at_s, link.status(at_s * S)) for at_s in (0, 105, 120, 155, 165, 175, 250)]
    assert [(at_s, status.state, status.predicted_aos_ns) for at_s, status in told] == [
        (0, LinkState.UNAVAIL, 100 * S),
        (105, LinkState.UNAVAIL, 110 * S),
        (120, LinkState.OK, None),
        (155, LinkState.FAILED, None),
        (165, LinkState.UNAVAIL, 170 * S),
        (175, LinkState.OK, None),
        (250, LinkState.UNAVAIL, None),
    ]
    assert told[0][1].detail == "AOS in 100.0 s"
    assert told[1][1].detail == "acquiring for another 5.0 s"


# Conservation


@settings(max_examples=60, deadline=None)
@given(
    impairments=st.builds(
        Impairments,
        rate_bps=st.sampled_from([800.0, 1e6]),
        loss=st.sampled_from([0.0, 0.3]),
        bit_error_rate=st.sampled_from([0.0, 1e-3]),
        duplicate=st.sampled_from([0.0, 0.4]),
        jitter_s=st.sampled_from([0.0, 0.5]),
        acquisition_s=st.sampled_from([(0.0, 0.0), (0.0, 3.0)]),
        queue_frames_max=st.integers(0, 3),
    ),
    gaps_ms=st.lists(st.integers(0, 3000), min_size=1, max_size=60),
    outages=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=4),
    seed=st.integers(0, 1000),
)
def test_every_frame_is_counted_exactly_once(
    impairments: Impairments, gaps_ms: list[int], outages: list[tuple[int, int]], seed: int
) -> None:
    link = Direction("isl-03-04", impairments, lambda name: Random(f"{seed}/{name}"))
    link.add_window(5 * S, 30 * S)
    link.add_window(40 * S, 70 * S)
    for start_s, length_s in outages:
        link.add_outage(start_s * S, (start_s + length_s) * S)
    now_ns, arrived = 0, []
    for gap_ms in gaps_ms:
        now_ns += gap_ms * 1_000_000
        arrived += link.transmit(FRAME, now_ns)
    counts = link.counts
    assert in_flight_balance(counts) == 0
    assert counts.sent == len(gaps_ms)
    assert counts.delivered == len(arrived)
    assert counts.delivered_bytes == 100 * len(arrived)
    assert counts.flipped_frames == sum(frame != FRAME for frame, _ in arrived)


def test_counts_add_up_field_by_field() -> None:
    total = ChannelCounts(sent=1, lost=2) + ChannelCounts(sent=10, flushed=3)
    assert total == ChannelCounts(sent=11, lost=2, flushed=3)
