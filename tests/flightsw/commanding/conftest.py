"""Commands on a bench of components whose handlers are scripted."""

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.commanding import CommandHooks, Commands
from flightsw.dictionary import flight_dictionary
from flightsw.wire.messages import Command, CommandCode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NODE = 11
S = 1_000_000_000
DICTIONARY = flight_dictionary()


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 24, Streams(1).random("disk"))


class StoppedClock:
    def __init__(self):
        self.now_ns = 5 * S

    def monotonic_ns(self):
        return self.now_ns

    def utc_ns(self):
        return 1_700_000_000 * S + self.now_ns


class Part:
    """A component whose commands all succeed, but for JOBS.CANCEL; those that take time go on until the test ends
    them."""

    def __init__(self, name, calls):
        self.name = name
        self._calls = calls

    def handlers(self):
        own = (spec for spec in DICTIONARY.components[self.name].commands.values() if spec.code > 1)
        return {spec.name: self._handler(spec) for spec in own}

    def channels(self):
        return {}

    def _handler(self, spec):
        def run(arguments, execution=None):
            self._calls.append((spec.key, arguments, execution))
            if spec.key == "JOBS.CANCEL":
                return Outcome(CommandCode.EXECUTION_ERROR, "no such job")
            return None if spec.takes_time else OK

        return run


class Bench:
    def __init__(self, disk, clock=None):
        self.clock = clock or StoppedClock()
        self.done, self.calls, self.judged, self.events, self.answers = [], [], [], [], []
        parts = [Part(name, self.calls) for name in DICTIONARY.components if name != "COMMANDS"]
        hooks = CommandHooks(
            answer=self.answers.append,
            on_execute=lambda command, age_ms: self.done.append(command.command_id),
            on_judged=self.judged.append,
            report=lambda *event: self.events.append(event),
        )
        self.commands = Commands(NODE, disk, self.clock, parts, hooks)

    def receive(self, command, age_ms=0):
        """The answers to one command."""
        self.answers.clear()
        self.commands.receive(command, age_ms)
        return list(self.answers)

    def ask(self, opcode, *arguments, command_id=None):
        """Send a command with a number of its own; returns (stage, code) of each answer."""
        command_id = 1000 + len(self.judged) if command_id is None else command_id
        return [(a.stage, a.code) for a in self.receive(Command(command_id, opcode, 1000, arguments))]


def noop(command_id=1, lifetime_ms=1000):
    return Command(command_id, "NODE.NOOP", lifetime_ms)


def sample(spec):
    """Arguments that a command takes."""
    values = {"bool": True, "f64": 1.0, "text": "x", "bytes": b"x", "list": []}
    return [
        one.values[0] if one.type == "enum" else values.get(one.type, one.min if one.min is not None else 1)
        for one in spec.arguments
    ]


@pytest.fixture(scope="session")
def make_bench():
    return Bench


@pytest.fixture(scope="session")
def make_clock():
    return StoppedClock


@pytest.fixture(scope="session", name="noop")
def _noop():
    return noop


@pytest.fixture(scope="session", name="sample")
def _sample():
    return sample
