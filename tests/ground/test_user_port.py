"""What users may ask a running ground: answers, and refusals that name what is wrong."""

import asyncio
import random  # noqa: TID251 - the seed is in the test
from contextlib import suppress

import msgspec
import pytest

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError, FlatrackError, StorageError
from flightsw.host.control import Method
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.wire.messages import (
    Beacon,
    CommandCode,
    Event,
    Mode,
    Severity,
    Stage,
    Verification,
    decode_message,
    encode_message,
)
from ground.control import UserPort
from ground.fleet import FleetNode
from ground.ledger import JobRequest
from ground.segment import GroundSegment
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
FLEET = tuple(FleetNode(11 + i, f"sat-{i + 1:02}", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ()) for i in range(3))
PLAN = ContactPlan(Contact(0, 50_000 * S, a, 0, b, 0, 1e6, 10**7) for a, b in ((1, 11), (11, 1)))


class Desk:
    """A ground whose frames go nowhere, and its users' port, called as a control socket calls it."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(lambda: loop.now_ns, 1_700_000_000 * S)
        self.ground = GroundSegment(
            clock=self.clock,
            link=MemoryLink(lambda interface, frame: None),
            disk=SimulatedDisk(1 << 20, random.Random(1)),
            plan=PLAN,
            interfaces=(InterfaceConfig(index=0, name="antenna"),),
            fleet=FLEET,
            dictionary_digest=b"d" * 8,
            beacon_period_s=10.0,
            store_bytes=1 << 19,
            verify=lambda request, report, result, product: None,
            on_complete=lambda job, report, result: None,
            record=lambda kind, fields: None,
            on_crash=lambda error: None,
        )
        self.ground.start()
        handlers = UserPort(self.ground, self.clock, FLEET, ("cloud_mask",)).handlers()
        self._methods = {name: Method(name, handler) for name, handler in handlers.items()}

    def ask(self, method, *params):
        answer = self._methods[method]([msgspec.msgpack.decode(msgspec.msgpack.encode(one)) for one in params])
        return answer if asyncio.iscoroutine(answer) else msgspec.msgpack.decode(msgspec.msgpack.encode(answer))

    def job(self, **changes):
        return {
            "kind": "cloud_mask",
            "model": self.ask("put_object", b"model"),
            "model_bytes": 5,
            "data": self.ask("put_object", b"tile"),
            "data_bytes": 4,
            "steps_count": 4,
            "step_mpix": 10.0,
            "deadline_s": 1000,
        } | changes


def at_desk(scenario):
    """Run a function of a desk in virtual time."""

    async def main():
        desk = Desk()
        try:
            result = scenario(desk)
            return await result if asyncio.iscoroutine(result) else result
        finally:
            await desk.ground.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def test_an_object_that_is_put_can_be_got():
    at_desk(lambda desk: desk.ask("get_object", desk.ask("put_object", b"bytes")) == b"bytes" or pytest.fail("lost"))


def test_a_job_is_accepted_as_a_map_or_as_a_list_and_is_on_record():
    def scenario(desk):
        number = desk.ask("submit", desk.job())
        request = JobRequest(**(desk.job() | {"priority": 2, "checkpoint_steps": 2, "product_measure_max": 0.5}))
        assert desk.ask("submit", msgspec.to_builtins(request, builtin_types=(bytes,))) == number + 1
        row = desk.ask("job", number)
        assert (row["job"], row["state"], row["deadline_ns"]) == (number, "ACCEPTED", 1000 * S)
        assert [row["job"] for row in desk.ask("jobs")] == [number + 1, number]
        assert [row["job"] for row in desk.ask("jobs", 1)] == [number + 1]
        assert desk.ask("status")["jobs"] == {"ACCEPTED": 2}

    at_desk(scenario)


WRONG_JOBS = [
    ({"kind": "weather"}, "submit: job: kind is 'weather', expected one of cloud_mask"),
    ({"model": b"short"}, "submit: job: Expected `bytes` of length >= 32 - at `$.model`"),
    ({"model_bytes": 6}, "submit: job: model_bytes is 6, expected 5, its size here"),
    ({"data": b"d" * 32}, "object 6464646464646464 is not here"),
    ({"steps_count": 0}, "submit: job: Expected `int` >= 1 - at `$.steps_count`"),
    ({"step_mpix": float("inf")}, "submit: job: Expected `float` <= "),
    ({"priority": 8}, "submit: job: Expected `int` <= 7 - at `$.priority`"),
    ({"deadline_s": 0}, "submit: job: Expected `int` >= 1 - at `$.deadline_s`"),
    ({"colour": "red"}, "submit: job: Object contains unknown field `colour`"),
]


@pytest.mark.parametrize(("changes", "why"), WRONG_JOBS, ids=range(len(WRONG_JOBS)))
def test_a_wrong_job_is_refused_and_not_on_record(changes, why):
    def scenario(desk):
        with pytest.raises((ConfigError, StorageError)) as caught:
            desk.ask("submit", desk.job(**changes))
        assert str(caught.value).startswith(why)
        assert desk.ask("jobs") == []

    at_desk(scenario)


def test_a_list_of_another_length_names_the_fields():
    def scenario(desk):
        with pytest.raises(ConfigError, match=r"job has 2 fields, expected 11: kind, model, model_bytes"):
            desk.ask("submit", ["cloud_mask", b"m"])

    at_desk(scenario)


def test_a_command_goes_to_a_node_by_name_or_number_and_its_chain_can_be_followed():
    async def scenario(desk):
        first = desk.ask("command", "sat-02", "NODE.NOOP")
        second = desk.ask("command", 11, "JOBS.CANCEL", [3, 1])
        state = desk.ask("command_state", first)
        assert state == {
            "command": first,
            "node": "sat-02",
            "opcode": "NODE.NOOP",
            "stage": "QUEUED",
            "code": "OK",
            "detail": "",
            "chain": [{"t_ns": 0, "stage": "QUEUED", "code": "OK", "detail": ""}],
        }
        chain = desk.ask("command_state", second)["chain"]
        assert [one["stage"] for one in chain] == ["QUEUED", "RELEASED", "SENT"], "sat-01 is in contact"
        failed = Verification(11, second, Stage.FAILED, CommandCode.EXECUTION_ERROR, "job 3 attempt 1 is not here")
        desk.ground.cluster.on_verification(failed, desk.clock.monotonic_ns())
        await asyncio.sleep(10)
        state = desk.ask("command_state", second)
        assert (state["stage"], state["code"], state["detail"]) == ("FAILED", "EXECUTION_ERROR", failed.detail)

    at_desk(scenario)


def beacon(digest):
    return Beacon(
        node=11,
        boot_count=1,
        uptime_s=10,
        utc_ns=0,
        mode=Mode.NOMINAL,
        reset_cause=1,
        charge_permille=900,
        electronics_ddegc=200,
        solar_dw=0,
        load_dw=0,
        command_count=0,
        command_error_count=0,
        jobs_waiting_count=0,
        jobs_completed_count=0,
        jobs_paused_count=0,
        models_repaired_count=0,
        frames_rejected_count=0,
        storage_free_bytes=0,
        dictionary_digest=digest,
    )


def test_a_node_with_another_dictionary_is_not_commanded_and_both_digests_are_named():
    def scenario(desk):
        theirs = beacon(b"t" * 8)
        desk.ground.cluster.on_beacon(theirs, encode_message(theirs), 0)
        for ask in (
            lambda: desk.ask("command", "sat-01", "JOBS.CANCEL", [3, 1]),
            lambda: desk.ground.command("sat-01", "JOBS.CANCEL", job=3, attempt=1),
        ):
            with pytest.raises(ConfigError) as caught:
                ask()
            assert str(caught.value) == (
                f"command: node 11 speaks dictionary {'74' * 8}, expected {'64' * 8}, the ground's"
            )
        assert desk.ground.ledger.open_commands() == []
        assert desk.ask("command", "sat-01", "NODE.NOOP") == 1, "the link can be tested"
        assert desk.ask("command", "sat-02", "JOBS.CANCEL", [3, 1]) == 2, "nothing is known of it"
        ours = beacon(b"d" * 8)
        desk.ground.cluster.on_beacon(ours, encode_message(ours), 1)
        assert desk.ask("command", "sat-01", "JOBS.CANCEL", [3, 1]) == 3

    at_desk(scenario)


def test_python_names_nodes_and_arguments():
    def scenario(desk):
        number = desk.ground.command("sat-01", "JOBS.CANCEL", attempt=2, job=17)
        (row,) = desk.ground.ledger.open_commands()
        command = decode_message(row.payload)
        assert (row.command_id, row.node) == (number, 11)
        assert (command.opcode, command.arguments, command.dictionary_digest) == ("JOBS.CANCEL", (17, 2), b"d" * 8)
        with pytest.raises(ConfigError, match="node is 'sat-09', expected a name of the fleet"):
            desk.ground.command("sat-09", "NODE.NOOP")

    at_desk(scenario)


WRONG_CALLS = [
    (("command", "sat-09", "NODE.NOOP"), "command: node is 'sat-09', expected one of sat-01, sat-02, sat-03"),
    (("command", 0, "NODE.NOOP"), "command: node is 0, expected one of"),
    (("command", "sat-01", "NODE.EXPLODE"), "command: opcode is 'NODE.EXPLODE', expected one of NODE."),
    (("command", "sat-01", "JOBS.SUBMIT", [[]]), "command: opcode is 'JOBS.SUBMIT', expected another"),
    (("command", "sat-01", "JOBS.CANCEL", [1]), "command: JOBS.CANCEL: 1 arguments, expected 2"),
    (("command", "sat-01", "JOBS.CANCEL", [1, "x"]), "command: JOBS.CANCEL: attempt is str, expected u64"),
    (("command", "sat-01", "NODE.NOOP", "none"), "command: arguments is 'none': Expected `array`"),
    (("command_state", 99), "command_state: number is 99, expected a command that was sent"),
    (("job", 99), "job: number is 99, expected a job that was accepted"),
    (("job", -1), "job: number is -1: Expected `int` >= 0"),
    (("jobs", 1001), "jobs: most is 1001: Expected `int` <= 1000"),
    (("events", "sat-09"), "events: node is 'sat-09', expected one of"),
    (("get_object", b"short"), "get_object: digest is b'short': Expected `bytes` of length >= 32"),
    (("put_object", "text"), "put_object: data is 'text': Expected `bytes`, got `str`"),
    (("ping", -1, 7, 64, 1.0), "ping: node is -1: Expected `int` >= 0"),
    (("ping", "sat-09", 7, 64, 1.0), "ping: node is 'sat-09', expected one of"),
    (("ping", 11, 7, 1, 1.0), "ping: 1 bytes, expected 12 to 16384"),
    (("ping", 11, 7, 64, 0.0), "ping: wait_s is 0.0: Expected `float` > 0"),
    (("ping", 11, 7, 64), "ping: 3 arguments, expected (node, service, size_bytes, wait_s)"),
    (("rotate_key", "sat-01", b"short"), "rotate_key: secret is b'short': Expected `bytes` of length >= 32"),
    (("rotate_key", "sat-01", b"s" * 32), "key of node 11: no keys are shared with it"),
    (("submit", 3), "submit: job is 3: Expected `object | array`, got `int`"),
]


@pytest.mark.parametrize(("call", "why"), WRONG_CALLS, ids=range(len(WRONG_CALLS)))
def test_a_wrong_argument_is_a_text_that_says_what(call, why):
    async def scenario(desk):
        with pytest.raises(FlatrackError) as caught:
            await desk.ask(*call)  # what answers at once refuses before it is awaited
        assert str(caught.value).startswith(why)

    at_desk(scenario)


def test_a_ping_that_nobody_answers_gives_nothing():
    async def scenario(desk):
        assert await desk.ask("ping", 11, 7, 64, 5.0) is None
        assert await desk.ask("ping", 77, 2047, 64, 5.0) is None, "any node may be asked, also a foreign one"

    at_desk(scenario)


def test_no_command_of_the_dictionary_crashes_on_plausible_nonsense():
    """Arguments of every type at every opcode: an answer or a refusal, nothing else."""
    nonsense = [None, True, 0, -1, 2**63, 1.5, "", "x", b"", b"x" * 32, [], [1], {}]

    def scenario(desk):
        for opcode, spec in flight_dictionary().commands.items():
            for value in nonsense:
                for count in (0, len(spec.arguments), len(spec.arguments) + 1):
                    with suppress(FlatrackError):
                        assert desk.ask("command", "sat-01", opcode, [value] * count) > 0

    at_desk(scenario)


def test_nodes_tell_presence_and_events_come_oldest_first():
    def scenario(desk):
        rows = desk.ask("nodes")
        assert [(row["node"], row["name"], row["presence"]) for row in rows] == [
            (11, "sat-01", "UNKNOWN"),
            (12, "sat-02", "UNKNOWN"),
            (13, "sat-03", "UNKNOWN"),
        ]
        for sequence, node in ((1, 11), (2, 12), (3, 11)):
            event = Event(node, 1, sequence, 0, Severity.WARNING_HI, "NODE", "RESET", f"text {sequence}")
            desk.ground.cluster.on_event(event, sequence * S)
        assert [(event["node"], event["text"]) for event in desk.ask("events")] == [
            ("sat-01", "text 1"),
            ("sat-02", "text 2"),
            ("sat-01", "text 3"),
        ]
        assert [event["text"] for event in desk.ask("events", "sat-01", 1)] == ["text 3"]
        assert desk.ask("status")["nodes"] == {"UNKNOWN": 3}

    at_desk(scenario)
