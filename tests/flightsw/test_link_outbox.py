import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.link.outbox import Outbox
from flightsw.link.pacing import Backoff, LineRate, lab_s

SECOND_NS = 1_000_000_000


@given(st.lists(st.integers(1, 400)), st.integers(1, 10), st.integers(400, 1000))
def test_a_queue_keeps_both_bounds_and_accounts_for_every_item(sizes, frames_max, bytes_max):
    outbox = Outbox(frames_max, bytes_max)
    for number, size in enumerate(sizes):
        outbox.put(number, size)
        assert len(outbox) <= frames_max
        assert outbox.held_bytes <= bytes_max
    kept = [outbox.take()[0] for _ in range(len(outbox))]
    assert kept == list(range(len(sizes) - len(kept), len(sizes))), "the newest are kept, in order"
    assert outbox.dropped_count + len(kept) == len(sizes)
    assert outbox.held_bytes == 0


def test_what_was_taken_and_not_delivered_goes_first_again():
    outbox = Outbox()
    for number in range(5):
        outbox.put(number, 10)
    taken = [outbox.take() for _ in range(3)]
    outbox.put(5, 10)
    outbox.put_back(taken)
    assert outbox.held_bytes == 60
    assert [outbox.take()[0] for _ in range(6)] == [0, 1, 2, 3, 4, 5]


def test_clearing_counts_what_it_drops():
    outbox = Outbox()
    outbox.put("one", 3)
    outbox.put("two", 3)
    outbox.clear()
    assert (len(outbox), outbox.held_bytes, outbox.dropped_count) == (0, 0, 2)


@pytest.mark.parametrize("baud", [50, 9600, 115_200, 921_600, 12_000_000])
@pytest.mark.parametrize("start_ns", [0, -5 * SECOND_NS, 10**18])
def test_a_line_never_takes_more_than_its_rate_and_a_burst(baud, start_ns):
    rate = LineRate(baud, burst_ns=SECOND_NS // 50)
    burst_bytes = rate.granted_bytes(start_ns)
    assert burst_bytes >= 16
    now_ns, total_bytes = start_ns, 0
    for _ in range(200):
        granted = rate.granted_bytes(now_ns)
        rate.charge(granted, now_ns)
        total_bytes += granted
        assert total_bytes <= burst_bytes + (now_ns - start_ns) * baud / 10 / SECOND_NS + 1
        assert rate.granted_bytes(now_ns) == 0
        now_ns += rate.wait_ns(now_ns)
        assert rate.granted_bytes(now_ns) > 0, "whoever waits as told may send"
    assert total_bytes >= 0.98 * (now_ns - start_ns) * baud / 10 / SECOND_NS, "the line does not idle"


def test_an_idle_line_saves_up_no_more_than_a_burst():
    rate = LineRate(9600, burst_ns=SECOND_NS // 50)
    first = rate.granted_bytes(0)
    rate.charge(first, 0)
    grants = [rate.granted_bytes(second * SECOND_NS) for second in range(1, 100)]
    assert set(grants) == {first}
    assert all(one == other for one, other in pairwise(grants))


class ScaledLoop(asyncio.SelectorEventLoop):
    time_scale = 60.0


@pytest.mark.parametrize(("loop_factory", "scale"), [(asyncio.SelectorEventLoop, 1), (ScaledLoop, 60)])
def test_pauses_grow_until_a_connection_lasts_and_are_those_of_the_lab(loop_factory, scale):
    async def main():
        backoff = Backoff()
        growing = []
        for _ in range(8):
            growing.append(backoff.next_s() / lab_s(1))
            backoff.note(lab_s(4.9))  # two clients of one name throw each other out: that must not become a storm
        assert growing == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        backoff.note(lab_s(5.1))
        assert backoff.next_s() == lab_s(0.1)
        assert lab_s(1) == scale

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
