"""The relay: routing, windows of radios, batches, power, live outages and the conservation laws."""

import heapq
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.ports import Random
from hil.channel.impairments import Impairments
from hil.channel.link import Link, LinkState
from hil.channel.relay import Relay

S = 1_000_000_000
FAST = Impairments(rate_bps=1e12)
SLOW = Impairments(rate_bps=800)  # 100 bytes take 1 s
FRAME = bytes(100)


def random_for(name: str) -> Random:
    return Random(f"11/{name}")


class Bench:
    """A relay on a little agenda, and what each node received."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.callbacks_count = 0
        self.received: list[tuple[int, int, int, bytes]] = []
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.relay = Relay(self.call_at_ns, lambda: self.now_ns)

    def call_at_ns(self, at_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        assert at_ns >= self.now_ns
        self._sequence += 1
        heapq.heappush(self._agenda, (at_ns, self._sequence, call, arguments))

    def power_on(self, *node_ids: int) -> None:
        for node_id in node_ids:

            def receive(interface: int, frame: bytes, node_id: int = node_id) -> None:
                self.received.append((self.now_ns, node_id, interface, frame))

            self.relay.attach(node_id, receive)

    def run_to(self, until_ns: int) -> None:
        while self._agenda and self._agenda[0][0] <= until_ns:
            self.now_ns, _, call, arguments = heapq.heappop(self._agenda)
            self.callbacks_count += 1
            call(*arguments)
        self.now_ns = until_ns

    def link(self, name: str, a: tuple[int, int], b: tuple[int, int], values: Impairments = FAST) -> Link:
        link = Link(name, values, random_for)
        self.relay.connect(a, b, link)
        return link


@pytest.fixture
def bench() -> Bench:
    """Two nodes, 3 and 4, that have power; no link yet."""
    bench = Bench()
    bench.power_on(3, 4)
    return bench


def test_a_frame_reaches_the_interface_at_the_other_end_after_its_delay(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 1), (4, 2), SLOW).set_range([0], [299.792458])
    bench.relay.send(3, 1, b"a" * 100)
    bench.relay.send(4, 2, b"b" * 200)
    bench.run_to(10 * S)
    assert bench.received == [(1 * S + 1_000_000, 4, 2, b"a" * 100), (2 * S + 1_000_000, 3, 1, b"b" * 200)]
    assert bench.relay.delivered_clean == {(3, 1): 1, (4, 2): 1}


def test_an_interface_of_a_radio_talks_to_the_peer_in_view() -> None:
    bench = Bench()
    bench.power_on(1, 2, 3)
    north, south = bench.link("north", (3, 0), (1, 7)), bench.link("south", (3, 0), (2, 7))
    south.add_window(30 * S, 40 * S)  # added out of order, and after the link was connected
    north.add_window(10 * S, 20 * S)
    south.add_window(50 * S, 60 * S)
    for at_s in range(5, 65, 10):
        bench.run_to(at_s * S)
        bench.relay.send(3, 0, b"%d" % at_s)
    bench.run_to(99 * S)
    assert [(node, frame) for _, node, _, frame in bench.received] == [(1, b"15"), (2, b"35"), (2, b"55")]
    assert bench.relay.dropped_no_peer == {(1, 7): 0, (2, 7): 0, (3, 0): 3}
    north.add_window(100 * S, 110 * S)
    bench.run_to(105 * S)
    bench.relay.send(3, 0, b"later")
    bench.run_to(106 * S)
    assert bench.received[-1][1:] == (1, 7, b"later")


def test_an_antenna_stays_with_its_satellite_until_loss_of_signal() -> None:
    bench = Bench()
    bench.power_on(1, 3, 4)
    bench.link("sat-03", (1, 0), (3, 0)).add_window(10 * S, 30 * S)
    bench.link("sat-04", (1, 0), (4, 0)).add_window(20 * S, 40 * S)
    for at_s in (15, 25, 30, 35):
        bench.run_to(at_s * S)
        bench.relay.send(1, 0, FRAME)
    bench.run_to(99 * S)
    assert [node for _, node, _, _ in bench.received] == [3, 3, 4, 4]


def test_frames_in_flight_at_loss_of_signal_still_arrive(bench: Bench) -> None:
    link = bench.link("isl-03-04", (3, 0), (4, 0))
    link.add_window(0, 10 * S, [0], [300_000.0])
    bench.run_to(10 * S - 1)
    bench.relay.send(3, 0, b"")
    bench.run_to(20 * S)
    assert [(at_ns > 10 * S, node) for at_ns, node, _, _ in bench.received] == [(True, 4)]


def test_frames_due_at_one_instant_cost_one_callback(bench: Bench) -> None:
    for interface in range(5):
        bench.link(f"link-{interface}", (3, interface), (4, interface))
    for interface in (4, 2, 0, 3, 1):
        bench.relay.send(3, interface, FRAME)
    assert bench.relay.in_flight_count() == 5
    bench.run_to(S)
    assert bench.callbacks_count == 1
    assert [interface for _, _, interface, _ in bench.received] == [4, 2, 0, 3, 1], "in the order of sending"


def test_an_answer_at_the_same_instant_is_delivered_too(bench: Bench) -> None:
    bench.relay.detach(4)
    bench.relay.attach(4, lambda interface, frame: bench.relay.send(4, interface, b""))
    bench.link("isl-03-04", (3, 0), (4, 0))
    bench.relay.send(3, 0, b"")
    bench.run_to(0)
    assert bench.received == [(0, 3, 0, b"")]


def test_flipped_frames_are_counted_apart(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0), Impairments(rate_bps=1e12, bit_error_rate=1e-3, duplicate=0.2))
    for i in range(200):
        bench.run_to(i * S)
        bench.relay.send(3, 0, FRAME)
    bench.run_to(300 * S)
    flipped = sum(frame != FRAME for _, _, _, frame in bench.received)
    assert 0 < flipped < len(bench.received)
    assert bench.relay.delivered_flipped == {(3, 0): 0, (4, 0): flipped}
    assert bench.relay.delivered_clean == {(3, 0): 0, (4, 0): len(bench.received) - flipped}


def test_frames_to_a_node_without_power_are_dropped_and_counted(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0))
    bench.relay.detach(4)
    bench.relay.send(3, 0, FRAME)
    bench.relay.send(4, 0, FRAME)
    bench.run_to(S)
    assert bench.received == []
    assert bench.relay.dropped_off == {(3, 0): 0, (4, 0): 1}
    assert bench.relay.dropped_sender_off == {(3, 0): 0, (4, 0): 1}
    status = bench.relay.link_state("isl-03-04", S)
    assert (status.state, status.detail) == (LinkState.UNAVAIL, "node 4 is off")
    bench.power_on(4)
    bench.relay.send(3, 0, FRAME)
    bench.run_to(2 * S)
    assert len(bench.received) == 1
    assert bench.relay.link_state("isl-03-04", S).state is LinkState.OK


def test_power_off_empties_the_transmit_queue_but_recalls_nothing_that_has_left(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0), SLOW).set_range([0], [300_000.0])
    for _ in range(5):
        bench.relay.send(3, 0, FRAME)
    bench.run_to(2 * S + S // 2)  # two have left, the third is cut in its middle
    bench.relay.detach(3)
    bench.power_on(3)
    bench.relay.send(3, 0, b"after the reset")
    bench.run_to(20 * S)
    assert [frame for _, _, _, frame in bench.received] == [FRAME, FRAME, b"after the reset"]
    assert bench.received[-1][0] < 5 * S, "the new frame does not wait for the lost ones"
    counts = bench.relay.counts()["isl-03-04"]["isl-03-04/forward"]
    assert (counts.sent, counts.delivered, counts.flushed) == (6, 3, 3)


def test_power_off_makes_room_in_the_transmit_queue(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0), Impairments(rate_bps=800, queue_frames_max=1))
    for _ in range(3):
        bench.relay.send(3, 0, FRAME)
    bench.relay.detach(3)
    bench.power_on(3)
    for _ in range(3):
        bench.relay.send(3, 0, FRAME)
    bench.run_to(20 * S)
    counts = bench.relay.total()
    assert (counts.sent, counts.flushed, counts.queue_dropped, counts.delivered) == (6, 2, 2, 2)


def test_a_flipped_frame_that_never_left_is_not_counted_as_flipped(bench: Bench) -> None:
    link = bench.link("isl-03-04", (3, 0), (4, 0), Impairments(rate_bps=800, bit_error_rate=0.5))
    bench.relay.send(3, 0, FRAME)
    bench.relay.send(3, 0, FRAME)
    assert link.forward.counts.flipped_frames == 2
    bench.run_to(1 * S + S // 2)
    link.add_outage(bench.now_ns, 9 * S)
    bench.run_to(20 * S)
    assert (link.forward.counts.flipped_frames, link.forward.counts.delivered) == (1, 1)


def test_a_live_outage_strikes_the_frames_that_wait_in_the_transmitter(bench: Bench) -> None:
    link = bench.link("isl-03-04", (3, 0), (4, 0), SLOW)
    for _ in range(6):
        bench.relay.send(3, 0, FRAME)
    bench.run_to(1 * S + S // 2)
    link.add_outage(bench.now_ns, bench.now_ns + 2 * S)  # until 3.5 s: the second, third and fourth leave in it
    assert bench.relay.link_state("isl-03-04", bench.now_ns).state is LinkState.FAILED
    bench.run_to(20 * S)
    assert [at_ns // S for at_ns, _, _, _ in bench.received] == [1, 5, 6]
    counts = link.forward.counts
    assert (counts.sent, counts.delivered, counts.blocked_outage) == (6, 3, 3)
    assert counts.delivered_bytes == 300


def test_an_interface_without_a_link_is_counted_by_node(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0))
    bench.relay.send(3, 9, FRAME)
    assert bench.relay.dropped_unknown_interface == {3: 1, 4: 0}


def test_counts_come_in_the_order_of_names(bench: Bench) -> None:
    for interface, name in enumerate(["b", "c", "a"]):
        bench.link(name, (3, interface), (4, interface))
    bench.relay.send(3, 0, FRAME)
    assert list(bench.relay.counts()) == bench.relay.link_names() == ["a", "b", "c"]
    assert list(bench.relay.counts()["b"]) == ["b/backward", "b/forward"]
    assert bench.relay.total().sent == 1
    before = bench.relay.counts()
    bench.relay.send(3, 0, FRAME)
    assert before["b"]["b/forward"].sent == 1, "counts are copies"


def test_wrong_links_are_refused(bench: Bench) -> None:
    bench.link("isl-03-04", (3, 0), (4, 0))
    with pytest.raises(ConfigError, match="unique"):
        bench.link("isl-03-04", (3, 1), (4, 1))
    with pytest.raises(ConfigError, match="both ends"):
        bench.link("isl-03-03", (3, 1), (3, 2))
    with pytest.raises(ConfigError, match=r"isl-99: .*isl-03-04"):
        bench.relay.link_state("isl-99", 0)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1500), st.sampled_from(["send", "send", "send", "answer", "off", "on", "outage"])),
        min_size=5,
        max_size=80,
    ),
    rate_bps=st.sampled_from([800.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_no_frame_is_lost_without_a_count(steps: list[tuple[int, str]], rate_bps: float, seed: int) -> None:
    values = Impairments(
        rate_bps=rate_bps,
        loss=0.1,
        bit_error_rate=5e-4,
        duplicate=0.1,
        jitter_s=0.3,
        reorder=0.1,
        reorder_delay_s=1.0,
        acquisition_s=(0.0, 1.0),
        queue_frames_max=3,
    )
    bench = Bench()
    link = Link("isl-03-04", values, lambda name: Random(f"{seed}/{name}"), range_km=100_000.0)
    bench.relay.connect((3, 0), (4, 0), link)
    link.add_window(2 * S, 50 * S)
    bench.power_on(3, 4)
    is_on, handed_over = True, 0
    for gap_ms, step in steps:
        bench.run_to(bench.now_ns + gap_ms * 1_000_000)
        if step in ("send", "answer"):
            bench.relay.send(*((3, 0, FRAME) if step == "send" else (4, 0, FRAME)))
            handed_over += 1
        elif step == "outage":
            link.add_outage(bench.now_ns, bench.now_ns + S)
        elif (step == "off") == is_on:
            is_on = not is_on
            bench.power_on(3) if is_on else bench.relay.detach(3)
        channel = bench.relay.total()
        clean, flipped = sum(bench.relay.delivered_clean.values()), sum(bench.relay.delivered_flipped.values())
        arrived = clean + flipped + sum(bench.relay.dropped_off.values())
        assert channel.delivered == arrived + bench.relay.in_flight_count()
        gone = channel.delivered + channel.lost + channel.blocked() + channel.queue_dropped + channel.flushed
        assert channel.sent + channel.duplicated == gone
        unsent = sum(bench.relay.dropped_no_peer.values()) + sum(bench.relay.dropped_sender_off.values())
        assert handed_over == channel.sent + unsent
        assert flipped == sum(frame != FRAME for _, _, _, frame in bench.received)
        assert clean + flipped == len(bench.received)
