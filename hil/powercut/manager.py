"""Commanding under power cuts: executed commands, replay windows, keys, jobs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flightsw.component import OK, Execution, Handler, LongHandler, Outcome, Scalar
from flightsw.compute.jobs import Job, JobTable
from flightsw.core.commanding import CommandHooks, Commands
from flightsw.dictionary import flight_dictionary
from flightsw.net.keys import KEY_BYTES, KeyRing, KeyState, KeyStore, PeerKeys, TrafficKey
from flightsw.net.replay import Flow, ReplayGuard
from flightsw.ports import Disk, Random
from flightsw.wire.messages import Command, CommandCode, JobSpec, Stage, Verification
from hil.powercut.subject import Notes, Subject, Value, blob, number_of, state_faults

NODE: Final = 3
PEER: Final = 1
NS_PER_S: Final = 1_000_000_000
SERVICE: Final = 2
WINDOW: Final = 64
"""Numbers that a replay window remembers: more than the lives of a trial bring."""
JOBS_COUNT: Final = 4


class StillClock:
    """A clock that moves when it is told to; implements `flightsw.ports.Clock`."""

    def __init__(self) -> None:
        self.now_ns = 5 * NS_PER_S

    def monotonic_ns(self) -> int:
        """Monotonic time [ns]."""
        return self.now_ns

    def utc_ns(self) -> int:
        """Mission time [ns]."""
        return 1_795_262_400 * NS_PER_S + self.now_ns


def unheard(key: str, *arguments: Any) -> None:
    """Takes events that nobody looks at."""


def uncounted(kind: str, fields: Mapping[str, object]) -> None:
    """Takes audit records that nobody looks at."""


def undumped(kind: str, data: bytes) -> int:
    """Takes data products that nobody looks at."""
    return 1


def default_of(key: str) -> Any:
    """A parameter's default."""
    return flight_dictionary().parameters[key].default


def whole(value: Value) -> int:
    """A noted number."""
    assert isinstance(value, int), f"{value!r} is no number"
    return value


class _Part:
    """A component whose commands end well, but for JOBS.CANCEL, which fails, and OBJECTS.FETCH, which goes on."""

    def __init__(self, name: str, under_way: list[Execution]) -> None:
        self.name = name
        self._under_way = under_way

    def handlers(self) -> Mapping[str, Handler | LongHandler]:
        """FETCH or CANCEL."""
        if self.name == "OBJECTS":
            return {"FETCH": self._fetch}
        return {"CANCEL": lambda _: Outcome(CommandCode.EXECUTION_ERROR, "no such job")}

    def channels(self) -> Mapping[str, Scalar]:
        """None."""
        return {}

    def _fetch(self, _: Any, execution: Execution) -> Outcome | None:
        self._under_way.append(execution)
        return None


class ExecutedCommands:
    """What took effect never does so again, and how it ended is said the same way again."""

    name = "commands"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Receive new and repeated commands; end some of those that take time."""
        under_way: list[Execution] = []
        commands = _commands(disk, notes, under_way)
        for _ in range(14):
            if under_way and random.random() < 0.3:
                outcome = OK if random.random() < 0.5 else Outcome(CommandCode.EXECUTION_ERROR, "no peer")
                under_way.pop().finish(outcome)
            known = notes.next_number("command")
            command_id = known if random.random() < 0.8 else random.randrange(known + 1)
            notes.begin("command", command_id)
            commands.receive(_command(command_id), 0)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Repeat every command that took effect."""
        again = Notes()
        commands = _commands(disk, again, [])
        faults = [f"{commands.lost_count} records of commands are lost"] if commands.lost_count else []
        for command_id in notes.durable("ran"):
            commands.receive(_command(whole(command_id)), 0)
            key = f"answer {command_id}"
            answered, found = notes.durable(key), again.durable(key)
            if answered and found != answered[-1:]:
                faults.append(f"command {command_id} was answered {answered[-1]}, and now {found}")
        faults += [f"command {command_id} was executed again" for command_id in again.durable("ran")]
        return faults


def _commands(disk: Disk, notes: Notes, under_way: list[Execution]) -> Commands:
    def answer(verification: Verification) -> None:
        if verification.stage in (Stage.COMPLETED, Stage.FAILED):
            notes.ack(f"answer {verification.command_id}", f"{verification.stage.name} {verification.code.name}")

    def execute(command: Command, age_ms: int) -> None:
        notes.ack("ran", command.command_id)

    hooks = CommandHooks(answer, execute, lambda judged: None, unheard)
    parts = [_Part("JOBS", under_way), _Part("OBJECTS", under_way)]
    return Commands(NODE, disk, StillClock(), parts, hooks)


def _command(command_id: int) -> Command:
    kinds: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("JOBS.NOOP", ()),
        ("JOBS.CANCEL", (17, 1)),
        ("OBJECTS.FETCH", (bytes(32), 100)),
    )
    opcode, arguments = kinds[command_id % len(kinds)]
    return Command(command_id, opcode, 1000, arguments)


class ReplayWindows:
    """A number that was accepted is never accepted again, and a new one is."""

    name = "replay-windows"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Accept numbers, some out of order, some twice."""
        guard = _guard(disk)
        for _ in range(16):
            number = notes.next_number("number") + random.choice((0, 0, 0, 1))
            notes.begin("number", number)
            if guard.accept(_FLOW, number):
                notes.ack("accepted", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Try all numbers again."""
        guard = _guard(disk)
        faults = [f"{one} was accepted twice" for one in notes.durable("accepted") if guard.accept(_FLOW, whole(one))]
        number = 1_000_000 + notes.next_number("fresh")
        notes.begin("fresh", number)
        if not guard.accept(Flow(PEER + 1, SERVICE, 1), number):
            faults.append(f"{number}, which is new, was refused")
        return faults


_FLOW: Final = Flow(PEER, SERVICE, 1)


def _guard(disk: Disk) -> ReplayGuard:
    return ReplayGuard({SERVICE: WINDOW * 4}, WINDOW, frozenset({SERVICE}), lambda node, key_id: True, disk)


class Keys:
    """The keys of a peer: as before a change, or as after it."""

    name = "keys"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Change keys as a rotation does, and destroy old ones; some rotations are given up."""
        keys = _key_store(disk)
        for _ in range(4):
            newest = keys.inventory(PEER)[-1][0]
            number = newest + 1 + random.randrange(2)
            changes: tuple[Callable[[KeyStore], str | None], ...] = (
                partial(KeyStore.load, peer=PEER, key_id=number, secret=bytes([number % 256]) * KEY_BYTES),
                partial(KeyStore.activate, peer=PEER, key_id=number),
                partial(KeyStore.deactivate, peer=PEER, key_id=newest),
                partial(KeyStore.destroy, peer=PEER, key_id=newest),
            )
            for change in changes[: random.choice((2, 4, 4, 4))]:
                shared = keys.of(PEER)
                assert shared is not None, "the ring has this peer"
                after = KeyStore(KeyRing(NODE, {PEER: shared}))  # in memory: says what the change leads to
                change(after)
                notes.begin("keys", _inventory(after))
                change(keys)
                notes.ack("keys", _inventory(keys))

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """One of the states that a change leads to, and with a key that sends."""
        keys = _key_store(disk)
        if keys.damaged_count:
            return [f"{keys.damaged_count} copies are damaged"]
        found = _inventory(keys)
        is_first = found == _inventory(KeyStore(_RING))
        return state_faults(notes, "keys", None if is_first else found)


_SHARED: Final = PeerKeys(bytes(KEY_BYTES), (TrafficKey(1, KeyState.ACTIVE, bytes(KEY_BYTES)),), 1)
_RING: Final = KeyRing(NODE, {PEER: _SHARED})


def _key_store(disk: Disk) -> KeyStore:
    return KeyStore(_RING, disk)


def _inventory(keys: KeyStore) -> str:
    sending = keys.active_id(PEER)
    return f"{sending} of " + ", ".join(f"{number} {state.name}" for number, state in keys.inventory(PEER))


class Jobs:
    """Each attempt with the checkpoint that was durable, or a later one."""

    name = "jobs"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Submit, checkpoint, hold and forget."""
        table = JobTable(disk, JOBS_COUNT, 0)
        for _ in range(16):
            job_id = random.randrange(JOBS_COUNT)
            key, job = f"job {job_id}", table.jobs.get(job_id)
            if job is None:
                notes.begin("attempt", attempt := 1 + notes.next_number("attempt"))
                notes.begin(key, f"attempt {attempt} step 0")
                table.submit(_spec(job_id, attempt), 0)
            elif random.random() < 0.2:
                notes.begin(key, None)
                table.forget(job_id)  # a power cut may bring it back: the ground then hears its report again
                continue
            else:
                job.step += 1
                job.working = blob(job.step, random.choice((40, 600, 2000)))
                notes.begin(key, f"attempt {job.spec.attempt} step {job.step}")
                table.checkpoint(job, 0)
            notes.ack(key, _progress(table.jobs[job_id]))

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Every job is as it was, or as it was to be."""
        table = JobTable(disk, JOBS_COUNT, 0)
        faults = [f"{table.unreadable_count} records cannot be read"] if table.unreadable_count else []
        for job_id in range(JOBS_COUNT):
            job = table.jobs.get(job_id)
            faults += state_faults(notes, f"job {job_id}", None if job is None else _progress(job))
        return faults


def _progress(job: Job) -> str:
    is_whole = not job.saved_step or number_of(job.saved) == job.saved_step
    return f"attempt {job.spec.attempt} step {job.saved_step}" + ("" if is_whole else " with another's checkpoint")


def _spec(job_id: int, attempt: int) -> JobSpec:
    return JobSpec(
        job_id=job_id,
        attempt=attempt,
        kind="cloud_mask",
        model=bytes(32),
        model_bytes=100,
        data=bytes(32),
        data_bytes=100,
        steps_count=1000,
        step_mpix=1.0,
        priority=3,
        deadline_s=3600,
        checkpoint_steps=1,
        product_measure_max=0.5,
    )


def subjects() -> list[Subject]:
    """All of them."""
    return [ExecutedCommands(), ReplayWindows(), Keys(), Jobs()]
