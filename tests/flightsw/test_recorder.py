"""The recorder: what was recorded is played back in its order until it is acknowledged, and nothing else gives way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.core.downlink import Downlink
from flightsw.core.recorder import FOLDER, SEGMENT_BYTES_MAX, WINDOW_MAX, Recorder
from flightsw.dictionary import flight_dictionary
from flightsw.host.files import FileDisk
from flightsw.ports import Random
from flightsw.storage.entries import OVERHEAD_BYTES
from flightsw.wire.messages import (
    SERVICE_DATA,
    SERVICE_EVENT,
    SERVICE_TELEMETRY,
    CommandCode,
    Event,
    Packets,
    PacketValues,
    Severity,
    decode_message,
    encode_message,
)
from hil.sim.faulty_disk import FaultyDisk, PowerCut

S = 1_000_000_000


class Bench:
    """A recorder over its boots, and a ground that takes what is played back."""

    def __init__(self, disk=None, boot_count=1, **parameters):
        self.disk = disk or FaultyDisk(1 << 24, Random(1))
        self.boot_count = boot_count
        self.parameters = {key: spec.default for key, spec in flight_dictionary().parameters.items()}
        self.parameters.update({f"RECORDER.{name}": value for name, value in parameters.items()})
        self.has_route, self.may_play = False, True
        self.sent, self.reports = [], []
        self.recorder = Recorder(
            11,
            boot_count,
            self.disk,
            parameter=self.parameters.__getitem__,
            has_route=lambda now_ns: self.has_route,
            may_play=lambda: self.may_play,
            transmit=self.transmit,
            report=lambda *event: self.reports.append(event),
        )

    def transmit(self, service, message, lifetime_ms, priority, reliable):
        assert (service, reliable) == (SERVICE_DATA, True)
        assert decode_message(encode_message(message)) == message
        self.sent.append(message)

    def reset(self, is_cut=False):
        if is_cut:
            self.disk.power_cut()
        again = Bench(self.disk, self.boot_count + 1)
        again.parameters = self.parameters
        return again

    def take(self):
        """What was played back since the last call, each segment acknowledged."""
        sent, self.sent = self.sent, []
        for message in sent:
            self.recorder.acknowledged(message.boot_count, message.number)
        return [record for message in sent for record in message.records]

    def play(self, cycles=50):
        """All that comes with a way to the ground."""
        self.has_route = True
        records = []
        for cycle in range(cycles):
            self.recorder.cycle(cycle * 10 * S)
            records += self.take()
        return records

    def do(self, name, *arguments):
        return self.recorder.handlers()[name](arguments)

    def channels(self):
        return self.recorder.channels()


def test_what_was_recorded_is_played_by_priority_and_then_by_age_and_erased_when_acknowledged():
    bench = Bench()
    for number, priority in enumerate([5, 0, 3, 5, 0, 3]):
        bench.recorder.record(b"%d" % number, priority)
    bench.recorder.cycle(0)
    assert bench.sent == [], "no way to the ground"
    assert bench.play() == [b"1", b"4", b"2", b"5", b"0", b"3"]
    assert bench.disk.names(FOLDER) == []
    channels = bench.channels()
    assert (channels["stored"], channels["stored_bytes"], channels["recorded"], channels["played"]) == (0, 0, 6, 6)
    assert bench.reports == [("RECORDER.PLAYED", 6)]


def test_a_segment_that_is_not_acknowledged_stays_and_comes_again_after_a_time():
    bench = Bench(repeat_s=100.0)
    bench.recorder.record(b"x", 5)
    bench.has_route = True
    for now_s in (0, 50, 99):
        bench.recorder.cycle(now_s * S)
    assert len(bench.sent) == 1
    bench.recorder.cycle(100 * S)
    assert len(bench.sent) == 2
    assert bench.sent[0] == bench.sent[1]
    assert bench.take() == [b"x", b"x"]
    assert bench.channels()["played"] == 1
    bench.recorder.acknowledged(1, 1)
    bench.recorder.acknowledged(7, 7)
    assert bench.channels()["played"] == 1, "what is not here cannot be acknowledged"


def test_what_is_recorded_after_a_segment_was_played_goes_into_another():
    bench = Bench()
    bench.recorder.record(b"first", 5)
    bench.has_route = True
    bench.recorder.cycle(0)
    bench.recorder.record(b"second", 5)
    assert bench.take() == [b"first"]
    assert bench.play() == [b"second"]


def test_records_survive_a_reset_and_are_played_before_newer_ones_of_their_priority():
    bench = Bench()
    bench.recorder.record(b"old", 5)
    again = bench.reset()
    again.recorder.record(b"new", 5)
    again.recorder.record(b"urgent", 0)
    assert again.channels()["stored"] == 3
    assert again.play() == [b"urgent", b"old", b"new"]


def test_what_a_cycle_has_seen_survives_a_power_cut_and_what_is_urgent_needs_none():
    for seed in range(20):
        bench = Bench(FaultyDisk(1 << 20, Random(seed)))
        bench.recorder.record(b"seen", 5)
        bench.recorder.cycle(0)
        bench.recorder.record(b"urgent", 0, is_urgent=True)
        bench.recorder.record(b"unsynced", 4)
        played = bench.reset(is_cut=True).play()
        assert [record for record in played if record != b"unsynced"] == [b"urgent", b"seen"]


def test_a_quiet_cycle_writes_nothing():
    bench = Bench()
    bench.recorder.record(b"x", 5)
    bench.recorder.cycle(0)
    calls_count = bench.disk.calls_count
    for now_ns in range(10):
        bench.recorder.cycle(now_ns)
    assert bench.disk.calls_count == calls_count


def test_in_a_storm_the_oldest_of_the_lowest_priority_gives_way_within_the_bound():
    bench = Bench(quota_bytes=8 * SEGMENT_BYTES_MAX)
    for number in range(2000):
        bench.recorder.record(b"%06d" % number + bytes(94), 5)
        if number % 10 == 0:
            bench.recorder.record(b"urgent%06d" % number, 1)
        assert bench.channels()["stored_bytes"] <= 8 * SEGMENT_BYTES_MAX
    assert sum(len(bench.disk.read(name)) for name in bench.disk.names(FOLDER)) == bench.channels()["stored_bytes"]
    bench.recorder.cycle(0)
    ((key, given, priority),) = bench.reports
    assert (key, priority) == ("RECORDER.GAVE_WAY", 5)
    channels = bench.channels()
    assert channels["gave_way"] == given == channels["recorded"] - channels["stored"]
    played = bench.play(200)
    urgent, others = played[:200], played[200:]
    assert urgent == [b"urgent%06d" % number for number in range(0, 2000, 10)], "nothing urgent gave way"
    assert others == [b"%06d" % number + bytes(94) for number in range(2000 - len(others), 2000)]
    assert len(others) > 500


def test_a_recorder_full_of_urgent_records_takes_no_lesser_ones_and_counts_them():
    bench = Bench(quota_bytes=SEGMENT_BYTES_MAX)
    count = SEGMENT_BYTES_MAX // (80 + OVERHEAD_BYTES)
    for _ in range(count):
        bench.recorder.record(bytes(80), 0)
    for _ in range(70):
        bench.recorder.record(bytes(500), 5)
    assert bench.channels()["gave_way"] == 70
    bench.recorder.cycle(0)
    assert bench.reports == [("RECORDER.GAVE_WAY", 70, 5)]
    assert bench.play() == [bytes(80)] * count


def test_playback_keeps_to_its_pace_and_its_window():
    bench = Bench(playback_packets_per_cycle=3)
    for _ in range(3):
        for priority in range(8):
            bench.recorder.record(b"x", priority)
    bench.has_route = True
    bench.recorder.cycle(0)
    assert [len(message.records) for message in bench.sent] == [3]
    bench.parameters["RECORDER.playback_packets_per_cycle"] = 1000
    bench.recorder.cycle(10 * S)
    assert len(bench.sent) == WINDOW_MAX
    bench.recorder.cycle(20 * S)
    assert len(bench.sent) == WINDOW_MAX, "nothing more until something is acknowledged"


def test_a_mode_without_playback_plays_on_command_only_and_records_on():
    bench = Bench()
    bench.may_play = False
    bench.recorder.record(b"x", 5)
    assert bench.play() == []
    bench.recorder.record(b"y", 5)
    assert bench.do("PLAY", 0).code is CommandCode.OK
    assert bench.play() == [b"x", b"y"]
    bench.recorder.record(b"z", 5)
    assert bench.play() == [], "the command was for what was there"


def test_play_from_a_priority_leaves_the_more_urgent_ones_until_the_others_are_through():
    bench = Bench()
    bench.may_play = False
    for priority in (1, 3, 5):
        bench.recorder.record(b"%d" % priority, priority)
    bench.do("PLAY", 3)
    assert bench.play() == [b"3", b"5"]
    bench.may_play = True
    assert bench.play() == [b"1"]


def test_stop_ends_playback_until_play_or_a_reset():
    bench = Bench()
    bench.recorder.record(b"x", 5)
    bench.do("STOP")
    assert bench.play() == []
    assert bench.channels()["playback"] == "STOPPED"
    assert bench.reset().play() == [b"x"]


def test_clear_erases_everything_and_says_so():
    bench = Bench()
    bench.recorder.record(b"x", 5)
    bench.recorder.record(b"y", 0)
    bench.do("CLEAR")
    assert (bench.channels()["stored"], bench.channels()["stored_bytes"]) == (0, 0)
    assert bench.reports == [("RECORDER.CLEARED", 2)]
    assert bench.reset().play() == []


def test_a_flipped_bit_costs_the_record_that_it_hits_and_none_behind_it():
    records = [b"record %02d" % number for number in range(20)]
    lost = set()
    for bit in range(0, 8 * 20 * (25 + 9), 97):
        bench = Bench()
        for record in records:
            bench.recorder.record(record, 5)
        bench.recorder.cycle(0)
        (name,) = bench.disk.names(FOLDER)
        bench.disk.flip_bit(name, bit)
        again = bench.reset()
        played = again.play()
        assert len(played) == 19
        assert [record for record in records if record in played] == played
        assert again.channels()["damaged"] == 1
        lost.update(set(records) - set(played))
        assert bench.disk.names(FOLDER) == []
    assert len(lost) == 20


def test_an_unreadable_segment_is_counted_and_given_up():
    bench = Bench()
    bench.recorder.record(b"lost", 5)
    bench.recorder.record(b"held", 3)
    bench.recorder.cycle(0)
    bench.disk.spoil(bench.disk.names(FOLDER + "5")[0])
    again = bench.reset()
    assert again.play() == [b"held"]
    assert again.channels()["damaged"] == 1
    assert ("RECORDER.RECORDING_FAILED" in [report[0] for report in again.reports]) is True


def test_a_failing_disk_is_counted_and_told_and_the_recorder_goes_on():
    for seed in range(20):
        bench = Bench(FaultyDisk(1 << 20, Random(seed)))
        bench.recorder.record(b"before", 5)
        bench.recorder.cycle(0)
        bench.disk.fail_writes(FOLDER)
        bench.recorder.record(b"refused", 5)
        bench.recorder.record(b"refused", 5, is_urgent=True)
        assert bench.channels()["unrecorded"] == 2
        bench.disk.fail_writes()
        bench.recorder.record(b"after", 5)
        bench.recorder.cycle(10 * S)
        assert [report[0] for report in bench.reports] == ["RECORDER.RECORDING_FAILED"]
        assert bench.reset(is_cut=True).play() == [b"before", b"after"]


def test_on_a_full_disk_older_lesser_records_give_way_to_new_ones():
    bench = Bench()
    for _ in range(3):
        for _ in range(40):
            bench.recorder.record(bytes(1000), 6)
    bench.recorder.cycle(0)
    bench.disk.fill()
    bench.recorder.record(b"urgent", 0)
    assert bench.channels()["unrecorded"] == 0
    assert bench.channels()["gave_way"] > 0
    assert bench.play()[0] == b"urgent"


def test_a_disk_that_is_full_of_other_things_refuses_and_is_told():
    bench = Bench()
    bench.disk.fill()
    bench.recorder.record(b"x", 0)
    bench.recorder.cycle(0)
    assert bench.channels()["unrecorded"] == 1
    assert [report[0] for report in bench.reports] == ["RECORDER.RECORDING_FAILED"]


def test_a_record_larger_than_a_segment_is_refused_and_told():
    bench = Bench()
    bench.recorder.record(bytes(SEGMENT_BYTES_MAX), 0)
    bench.recorder.cycle(0)
    assert bench.channels()["unrecorded"] == 1
    assert bench.channels()["stored"] == 0


def test_files_that_are_none_of_its_own_are_left_alone():
    bench = Bench()
    for name in ("recorder/readme", "recorder/5-1-1", "recorder/x-000000000001-00000001"):
        bench.disk.replace(name, b"other")
    again = bench.reset()
    assert again.channels()["stored"] == 0
    assert len(bench.disk.names(FOLDER)) == 3


def test_the_same_holds_on_real_files(tmp_path):
    disk = FileDisk(tmp_path, 1 << 24)
    bench = Bench(disk)
    for number in range(100):
        bench.recorder.record(b"%d" % number, number % 8)
    bench.recorder.cycle(0)
    disk.close()
    disk = FileDisk(tmp_path, 1 << 24)
    played = Bench(disk, boot_count=2).play()
    assert played == [b"%d" % number for number in sorted(range(100), key=lambda number: (number % 8, number))]
    assert disk.names(FOLDER) == []
    disk.close()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_no_history_of_cuts_resets_and_passes_loses_what_was_durable_or_brings_what_was_not_recorded(seed):
    """Acknowledgements are lost, too: then records come twice, which their numbers tell."""
    draw = Random(seed)
    bench = Bench(FaultyDisk(1 << 24, draw))
    recorded, durable, played = set(), set(), []
    count = 0
    for _ in range(draw.randint(1, 8)):
        bench.disk.cut_power_at(draw.randint(0, 50) if draw.random() < 0.7 else None)
        unsynced = set()
        try:
            for cycle in range(draw.randint(1, 12)):
                for _ in range(draw.randint(0, 6)):
                    count += 1
                    record = b"%d " % count * draw.choice((1, 20, 300))
                    recorded.add(record)
                    unsynced.add(record)
                    bench.recorder.record(record, draw.randrange(8))
                bench.has_route = draw.random() < 0.3
                bench.recorder.cycle(cycle * 100 * S)
                durable |= unsynced
                unsynced = set()
                for message in bench.sent:
                    played += message.records
                    if draw.random() < 0.7:
                        bench.recorder.acknowledged(message.boot_count, message.number)
                bench.sent = []
        except PowerCut:
            pass
        bench = bench.reset(is_cut=True)
    played += bench.play()
    assert set(played) <= recorded, f"seed {seed}"
    assert durable <= set(played), f"seed {seed}: what was durable is lost"
    assert bench.disk.names(FOLDER) == [], f"seed {seed}"


EVENTS = [Event(11, 1, 1, 0, severity, "NODE", "RESET", "why") for severity in (Severity.FATAL, Severity.ACTIVITY_LO)]
PACKETS = Packets(11, 1, 1, 1000, (PacketValues("NODE.HK", (1, 2)),))


def test_with_a_way_to_the_ground_events_go_reliably_and_packets_at_best():
    sent = []
    bench = Bench()
    downlink = Downlink(bench.recorder, lambda now_ns: True, lambda *message: sent.append(message))
    for event in EVENTS:
        downlink.event(event, 0)
    assert downlink.packets(PACKETS, 5, 0)
    assert [(service, message, reliable) for service, message, _, _, reliable in sent] == [
        (SERVICE_EVENT, EVENTS[0], True),
        (SERVICE_EVENT, EVENTS[1], True),
        (SERVICE_TELEMETRY, PACKETS, False),
    ]
    assert bench.channels()["recorded"] == 0


def test_without_one_they_are_recorded_the_severe_first_and_durably_at_once():
    bench = Bench()
    downlink = Downlink(bench.recorder, lambda now_ns: False, lambda *message: pytest.fail("nothing can be sent"))
    assert not downlink.packets(PACKETS, 5, 0)
    for event in reversed(EVENTS):
        downlink.event(event, 0)
    assert [decode_message(record) for record in bench.disk.names() and bench.play()] == [
        EVENTS[0],
        EVENTS[1],
        PACKETS,
    ]
    bench = Bench()
    Downlink(bench.recorder, lambda now_ns: False, bench.transmit).event(EVENTS[0], 0)
    assert len(bench.reset(is_cut=True).play()) == 1
