"""Mission time jumps by three days, and nothing that must not care does: a node and its ground, in virtual time.

Every run does the same with the same seed; in all but the first, the board's clock or mission time itself jumps in the
middle. What timers, jobs, keys and sequences do is compared with the run without a jump.
"""

import ast
import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flightsw.compute.inference import InferenceCache
from flightsw.dictionary import flight_dictionary
from flightsw.wire.messages import CommandCode, Stage
from ground.sequence_text import utc_text
from ground.sequences import compile_source
from hil.bench.run import Bench
from hil.bench.scenario import load
from hil.channel.relay import Fate, Way
from hil.faults.plan import ClockJump

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "three.toml"
NODE, NAME = 12, "sat-02"
"""In view of the station from T+489 s to T+888 s."""
S = 1_000_000_000
DAYS_3_S = 259_200
UNTIL_S = 1500.0
CACHE = InferenceCache()
ONE_FRAME_MORE = "sat-n: accepted n frames of n delivered clean, corrected n and rejected n of n delivered with flips"

RELATIVE = """
sequence("steps", kind="relative")
NODE.NOOP()
for n in range(6):
    wait(seconds=100)
    MODE.NOOP()
"""


def absolute(epoch_utc_ns: int) -> str:
    """Entries each 50 s from T+520 s on, one three days later, one three days before that."""
    lines = ['sequence("plan", kind="absolute", late_max_s=30)', 'if_fails("continue")']
    for at_s in (*range(520, 1100, 50), 800 + DAYS_3_S):
        lines += [f'at("{utc_text(epoch_utc_ns + at_s * S)}")', "KEYS.NOOP()"]
    return "\n".join(lines)


@dataclass
class Run:
    """What one run told."""

    outcome: Any = None
    codes: dict[str, CommandCode] = field(default_factory=dict)
    """By what was commanded."""
    steps_ns: list[int] = field(default_factory=list)
    """When entries of the relative sequence ran."""
    plan_ns: list[int] = field(default_factory=list)
    """And of the absolute one."""
    beacons_uptime_s: list[int] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    jobs: dict[int, tuple[str, int]] = field(default_factory=dict)
    """State and attempts."""
    security_refused: dict[str, int] = field(default_factory=dict)
    answers: tuple[int, int] = (0, 0)
    """Readings of the node's time, and answers that did not count."""
    mission_error_s: float = 0.0
    modes: list[str] = field(default_factory=list)


class Operator:
    """Does the same in each run, but for the jump."""

    def __init__(self, run: Run, jump: Callable[["Operator"], Any]) -> None:
        self.run = run
        self.jump = jump
        self.queries: list[tuple[int, bytes]] = []
        self.is_listening = False

    async def __call__(self, bench: Bench) -> None:
        self.bench, self.ground = bench, bench.ground.segment
        bench._relay.observer = self.observe
        dictionary = flight_dictionary()
        await asyncio.sleep(500)
        await self.command("ADJUST", "TIME.ADJUST", 0, 0, 0)
        for source in (RELATIVE, absolute(bench.scenario.epoch_utc_ns)):
            image = compile_source(source, "source", dictionary)
            await self.command(f"LOAD {len(self.run.codes)}", "SEQUENCES.LOAD", image)
        await self.command("START steps", "SEQUENCES.START", "steps")
        await self.command("START plan", "SEQUENCES.START", "plan")
        self.is_listening = True
        self.ground.times.ask(NODE)
        await asyncio.sleep(1)
        self.is_listening = False
        await asyncio.sleep(560 - bench.loop.now_ns / S)
        in_flight = self.ground.command(NODE, "OBJECTS.NOOP")
        await self.jump(self)
        await self.ended("in flight", in_flight)
        await asyncio.sleep(590 - bench.loop.now_ns / S)
        assert len(self.queries) == 1
        for interface, frame in self.queries:  # a query of before the jump is still known as one that has been answered
            bench.members[NAME]._link.deliver(interface, frame)
        key_id = self.ground.rotate_key(NODE, bytes(range(32)))
        await asyncio.sleep(100)
        assert key_id == self.ground.keys.active_id(NODE)
        await self.command("after", "JOBS.NOOP")
        node = bench.members[NAME].node
        await asyncio.sleep(1400 - bench.loop.now_ns / S)
        self.run.mission_error_s = (node._parts.time.utc_ns() - bench.scenario.epoch_utc_ns - bench.loop.now_ns) / S
        known = self.ground.times.estimate(NODE)
        assert known is not None
        self.run.answers = (known.readings_count, self.ground.times.refused_count)
        self.run.security_refused = dict(node.agent.counters.security_refused)
        self.run.beacons_uptime_s = [b.uptime_s for _, b in self.ground.archive.beacons(NODE, 0, 2**62)]
        self.run.jobs = {row["job"]: (str(row["state"]), row["attempt"]) for row in self.ground.ledger.jobs(count=500)}

    async def command(self, what: str, opcode: str, *arguments: object) -> None:
        await self.ended(what, self.ground.command(NODE, opcode, *arguments))

    async def ended(self, what: str, number: int) -> None:
        for _ in range(600):
            last = self.ground.cluster.chain(number)[-1]
            if last.stage in (Stage.COMPLETED, Stage.FAILED):
                self.run.codes[what] = last.code
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{what}: no answer")

    def observe(self, at_ns: int, way: Way, sent: bytes, frame: bytes, fate: Fate) -> None:
        if self.is_listening and way.target[0] == NODE and fate is Fate.DELIVERED:
            self.queries.append((way.target[1], bytes(frame)))


async def no_jump(operator: Operator) -> None:
    """The run that the others are compared with."""


def board_jump(jump_s: int) -> Callable[[Operator], Any]:
    """The board's clock jumps."""

    async def jump(operator: Operator) -> None:
        fault = ClockJump(node=NAME, at_s=0.0, jump_s=jump_s)
        operator.bench.injector.strike(fault, operator.bench.streams.child("test").random("jump"))

    return jump


def mission_jump(jump_s: int) -> Callable[[Operator], Any]:
    """Mission time itself jumps, by command."""

    async def jump(operator: Operator) -> None:
        await operator.command("SET unarmed", "TIME.SET", jump_s * S, 1)
        await operator.command("ARM", "COMMANDS.ARM", "TIME.SET")
        await operator.command("SET", "TIME.SET", jump_s * S, 1)

    return jump


def fly(jump: Callable[[Operator], Any]) -> Run:
    scenario = load(str(EXAMPLE))
    clean = msgspec.structs.replace(scenario.links.ground.impairments, loss=0.0, bit_error_rate=0.0)
    links = msgspec.structs.replace(
        scenario.links, ground=msgspec.structs.replace(scenario.links.ground, impairments=clean)
    )
    scenario = msgspec.structs.replace(scenario, faults=(), links=links)
    run = Run()
    bench = Bench(scenario, 3, until_s=UNTIL_S, cache=CACHE, operator=Operator(run, jump))

    def note(event: tuple[int, str, str, dict[str, Any]]) -> None:
        at_ns, source, kind, fields = event
        if source != NAME:
            return
        if kind == "command.judged" and fields["origin"].startswith("sequence "):
            assert fields["code"] == "OK"
            (run.steps_ns if " steps " in fields["origin"] else run.plan_ns).append(at_ns)
        elif kind == "event":
            run.events.append((fields["name"], fields["severity"]))
        elif kind == "node.mode":
            run.modes.append(fields["mode"])

    bench.trace.subscribe(note)
    run.outcome = bench.run()
    return run


@pytest.fixture(scope="module")
def calm() -> Run:
    return fly(no_jump)


def same_but_for_mission_time(run: Run, calm: Run) -> None:
    """All that counts on monotonic time, on ages and on numbers."""
    assert not run.outcome.crash
    # the bench sees the frame that the test replayed, and nothing else that should not be
    assert [re.sub(r"\d+", "n", one.text) for one in run.outcome.violations] == [ONE_FRAME_MORE]
    assert run.answers == calm.answers == (1, 0)
    assert run.steps_ns == calm.steps_ns
    assert len(run.steps_ns) == 7
    assert run.beacons_uptime_s == calm.beacons_uptime_s
    assert run.jobs == calm.jobs
    assert run.modes == calm.modes
    assert run.codes["in flight"] is CommandCode.OK
    assert run.codes["after"] is CommandCode.OK
    assert run.security_refused == calm.security_refused == {}
    for name in ("jobs_accepted", "jobs_completed", "results_equal"):
        assert run.outcome.counters.get(name) == calm.outcome.counters.get(name)


def test_the_calm_run_runs_both_sequences_at_their_times(calm: Run) -> None:
    assert [round((at - calm.steps_ns[0]) / S) for at in calm.steps_ns] == [0, 100, 200, 300, 400, 500, 600]
    assert [at // S // 2 * 2 for at in calm.plan_ns] == list(range(520, 1100, 50))
    assert set(calm.codes.values()) == {CommandCode.OK}
    assert abs(calm.mission_error_s) < 1e-6


@pytest.mark.parametrize("jump_s", [-DAYS_3_S, DAYS_3_S])
def test_a_jump_of_the_boards_clock_changes_nothing_and_is_reported(jump_s: int, calm: Run) -> None:
    run = fly(board_jump(jump_s))
    same_but_for_mission_time(run, calm)
    assert run.plan_ns == calm.plan_ns, "mission time goes on without the jump"
    assert run.events.count(("TIME.CLOCK_JUMPED", "WARNING_HI")) == 1
    assert abs(run.mission_error_s) < 0.01


@pytest.mark.parametrize("jump_s", [-DAYS_3_S, DAYS_3_S])
def test_a_jump_of_mission_time_moves_absolute_sequences_only(jump_s: int, calm: Run) -> None:
    run = fly(mission_jump(jump_s))
    same_but_for_mission_time(run, calm)
    assert run.codes["SET unarmed"] is CommandCode.NOT_ARMED
    assert run.codes["SET"] is CommandCode.OK
    assert run.mission_error_s == pytest.approx(jump_s, abs=0.01)
    before = [at for at in calm.plan_ns if at < 560 * S]
    assert run.plan_ns[: len(before)] == before
    after = [at // S // 2 * 2 for at in run.plan_ns[len(before) :]]
    if jump_s > 0:
        assert after == [800], "what three days went over was skipped, what they led up to ran"
        assert ("SEQUENCES.SKIPPED", "WARNING_LO") in run.events
    else:
        assert after == [], "nothing runs again, and what is to come waits three days longer"
        assert ("SEQUENCES.SKIPPED", "WARNING_LO") not in run.events


READERS = {
    "flightsw/assembly.py": "the boot record is stamped with it",
    "flightsw/core/audit.py": "audit records are stamped",
    "flightsw/core/events.py": "events are stamped",
    "flightsw/core/mission_time.py": "mission time itself",
    "flightsw/core/mode_commands.py": "reasons of mode changes are stamped",
    "flightsw/net/endpoint.py": "bundles have a creation time; their age is counted apart from it",
    "flightsw/node.py": "beacons are stamped",
    "ground/control.py": "for people",
    "ground/time_correlation.py": "what is true time",
}
"""Who reads a UTC clock, and why it is no timer. `known_ns`, which absolute sequences wait for, is not in it."""


def test_nobody_else_reads_mission_time() -> None:
    """A timer that reads it would fire early or never after a jump."""
    found = set()
    for package in ("flightsw", "ground"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
            if any(isinstance(func, ast.Attribute) and func.attr == "utc_ns" for func in calls):
                found.add(path.relative_to(ROOT).as_posix())
    found.discard("flightsw/host/clock.py")
    assert found == set(READERS)
