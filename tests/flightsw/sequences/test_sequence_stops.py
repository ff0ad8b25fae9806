"""What sequences refuse and what ends them: failures, damage, the mode, and commands that say why they do nothing."""

from collections.abc import Callable
from typing import Any

from flightsw.component import Outcome
from flightsw.core.sequences import DEPTH_MAX, LOADED_MAX, RUNNING_MAX
from flightsw.wire.messages import CommandCode, Mode

S = 1_000_000_000
NOOP = ("NODE.NOOP", ())
SAFE = ("MODE.SAFE", ())


# -- failures and stops


def test_a_failed_entry_stops_the_sequence_or_not_as_it_was_compiled(make_node: Callable[..., Any]) -> None:
    for stops, ran, last in ((True, 1, "STOPPED"), (False, 2, "COMPLETED")):
        node = make_node(failing={"MODE.SAFE"}).boot()
        node.load_and_start((0, SAFE), (S, NOOP), stops_on_failure=stops)
        node.run_until(10)
        assert len(node.ran) == ran
        assert ("FAILED", "s", 1, "MODE.SAFE EXECUTION_ERROR no") in node.events
        assert node.names()[-1] == last
        assert node.status() == ["FAILED_DISTRIBUTION", "LOADED" if stops else "EXECUTED"]


def test_an_entry_that_changed_in_memory_is_taken_from_the_disk_again(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((0, NOOP), (S, ("JOBS.PAUSE", (17,))))
    loaded = node.sequences._loaded["s"].image
    loaded.image = loaded.image[:-1] + bytes((loaded.image[-1] ^ 1,))
    node.run_until(10)
    assert [(opcode, arguments) for _, opcode, arguments, _ in node.ran] == [NOOP, ("JOBS.PAUSE", (17,))]
    assert ("REPAIRED", "s", 2) in node.events


def test_an_entry_that_holds_neither_in_memory_nor_on_the_disk_fails_by_its_checksum_and_is_not_executed(
    make_node: Callable[..., Any],
) -> None:
    node = make_node().boot()
    node.load_and_start((0, NOOP), (S, SAFE), (S, NOOP), stops_on_failure=False)
    loaded = node.sequences._loaded["s"].image
    at = loaded._starts[1] + 8
    loaded.image = loaded.image[:at] + bytes((loaded.image[at] ^ 64,)) + loaded.image[at + 1 :]
    for name in node.disk.names("sequences/"):
        node.disk.flip_bit(name, 300)
    node.run_until(10)
    assert [opcode for _, opcode, *_ in node.ran] == ["NODE.NOOP", "NODE.NOOP"]
    assert ("FAILED", "s", 2, "checksum does not hold") in node.events
    assert node.control.channels()["failed"] == 1


def test_safe_ends_what_is_not_made_for_it_before_its_next_entry(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((0, SAFE), (0, NOOP), (S, NOOP))
    node.load_and_start((2 * S, NOOP), name="hardy", runs_in_safe=True)
    node.run_until(10)
    assert [(opcode, origin) for _, opcode, _, origin in node.ran] == [
        ("MODE.SAFE", "sequence s entry 1"),
        ("NODE.NOOP", "sequence hardy entry 1"),
    ]
    assert ("STOPPED", "s", 2, "SAFE") in node.events
    assert {"kind": "sequence", "sequence": "s", "act": "stop", "reason": "SAFE", "at": 2} in node.decisions
    assert node.do("START", "s") == Outcome(CommandCode.EXECUTION_ERROR, "s does not run in SAFE")
    node.mode = Mode.MAINTENANCE
    assert node.do("START", "s").code is CommandCode.OK


def test_a_sequence_that_one_of_its_own_entries_stops_runs_no_further(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((0, ("SEQUENCES.STOP", ("s",))), (0, NOOP))
    node.run_until(10)
    assert node.status() == ["EXECUTED", "LOADED"]
    assert node.control.channels()["running"] == 0


def test_sequences_start_one_another_up_to_a_depth(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    for here, there in (("a", "b"), ("b", "a")):
        node.load((0, NOOP), (S, ("SEQUENCES.START", (there,))), (0, NOOP), name=here)
    assert node.do("START", "a").code is CommandCode.OK
    node.run_until(100)
    assert node.names().count("STARTED") == DEPTH_MAX
    assert ("STARTED", "b", "by a entry 2") in node.events
    reason = f"SEQUENCES.START EXECUTION_ERROR {DEPTH_MAX} sequences started each other, at most {DEPTH_MAX}"
    assert reason in [event[3] for event in node.events if event[0] == "FAILED"]
    assert node.control.channels()["running"] == 0


# -- commands


def test_a_forged_or_foreign_image_is_refused_and_the_entry_named(
    make_node: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    node = make_node().boot()
    good = image((0, NOOP), (0, SAFE))
    forged = good[:-2] + bytes((good[-2] ^ 1,)) + good[-1:]
    assert node.do("LOAD", forged) == Outcome(CommandCode.VALIDATION_ERROR, "entry 2: checksum does not hold")
    unknown = image((0, NOOP), (0, ("NODE.EXPLODE", ())))
    assert node.do("LOAD", unknown).detail == "entry 2: NODE.EXPLODE is not in the dictionary"
    foreign = image((0, NOOP), dictionary_digest=bytes(8))
    assert node.do("LOAD", foreign).detail.startswith("compiled with dictionary 0000000000000000, expected")
    assert node.do("LOAD", b"").code is CommandCode.VALIDATION_ERROR
    assert node.control.channels()["loaded"] == 0
    assert node.disk.names() == []


def test_commands_say_why_they_do_nothing(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    for name in ("START", "STOP", "ENABLE", "DISABLE", "UNLOAD", "DUMP"):
        assert node.do(name, "x") == Outcome(CommandCode.EXECUTION_ERROR, "no sequence 'x' is loaded")
    assert node.do("LIST").detail == "none"
    node.load((S, NOOP))
    assert node.do("STOP", "s").detail == "s does not run"
    assert node.do("DISABLE", "s").code is CommandCode.OK
    assert node.do("START", "s") == Outcome(CommandCode.DISABLED, "s is disabled")
    assert node.do("LIST").detail == "s relative DISABLED 0/1"
    node.do("ENABLE", "s")
    node.do("START", "s")
    assert node.do("START", "s") == Outcome(CommandCode.BUSY, "s runs already, at entry 1 of 1")
    assert node.do("UNLOAD", "s") == Outcome(CommandCode.BUSY, "s runs")
    assert node.load((S, NOOP)) == Outcome(CommandCode.BUSY, "s runs")
    assert node.do("LIST").detail == "s relative RUNNING 0/1"
    assert node.do("STOP", "s").code is CommandCode.OK
    assert node.events[-1] == ("STOPPED", "s", 1, "by command")
    assert node.do("UNLOAD", "s").code is CommandCode.OK
    assert node.boot().do("LIST").detail == "none"
    assert node.disk.names("sequences/") == []


def test_disable_lets_go_on_what_runs_and_is_kept_over_a_reset(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((2 * S, NOOP))
    node.do("DISABLE", "s")
    node.run_until(10)
    assert len(node.ran) == 1
    assert node.boot().do("START", "s").code is CommandCode.DISABLED


def test_what_is_loaded_and_what_runs_is_bounded(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    for number in range(LOADED_MAX):
        assert node.load((S, NOOP), name=f"s{number}").code is CommandCode.OK
    refused = node.load((S, NOOP), name="more")
    assert refused == Outcome(CommandCode.BUSY, f"{LOADED_MAX} sequences are loaded, at most {LOADED_MAX}")
    for number in range(RUNNING_MAX):
        assert node.do("START", f"s{number}").code is CommandCode.OK
    assert node.do("START", f"s{RUNNING_MAX}").code is CommandCode.BUSY
    listed = node.do("LIST").detail
    assert len(listed) <= 512
    assert listed.endswith(" more")
