import asyncio

import pytest

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, StorageError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyStore, derived_rings
from flightsw.net.security import BundleSecurity
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.objects.transfers import Transfers
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_DATA,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Beacon,
    Command,
    CommandCode,
    Event,
    JobReport,
    JobReportAck,
    JobSpec,
    JobState,
    Mode,
    ObjectQuery,
    Packets,
    PacketValues,
    Playback,
    PlaybackAck,
    Severity,
    Stage,
    Verification,
    decode_message,
    encode_message,
    job_spec,
)
from ground.archive import Archive
from ground.fleet import FleetNode
from ground.ledger import JobRequest, Ledger
from ground.segment import GroundSegment
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

S = 1_000_000_000
GROUND, NODE = 1, 2
DICTIONARY = b"d" * 8
MODEL, TILE, MASK = b"model" * 100, b"tile" * 5000, b"mask" * 10
DELAY_S = 0.01
PLAN = ContactPlan(Contact(0, 50_000 * S, a, 0, b, 0, 1e6, 10**7) for a, b in ((GROUND, NODE), (NODE, GROUND)))
RADIO = (InterfaceConfig(index=0, name="radio"),)
RINGS = derived_rings(bytes(32), [NODE], GROUND)


class Peer:
    """A node reduced to what the ground sees of one: it takes objects and jobs, and answers."""

    def __init__(self, clock, link, disk, *, is_working=True):
        self.store = ObjectStore(disk, quota_bytes=1 << 22)
        self.transfers = Transfers(self.store, local=NODE)
        security = BundleSecurity(NODE, KeyStore(RINGS[NODE]))
        agent = BundleAgent(NODE, PLAN, RADIO, 1 << 32, security=security)
        self.endpoint = Endpoint(clock, link, agent, self.on_delivery)
        self.clock = clock
        self.is_working = is_working
        self.job = None
        self.executed, self.acknowledged, self.erased = [], [], []

    def say(self, service, message, reliable=True):
        payload = message if isinstance(message, bytes) else encode_message(message)
        self.endpoint.send(GROUND, service, payload, lifetime_ms=3_600_000, reliable=reliable)

    def beacon(self, node=NODE):
        fields = (node, 1, 100, 0, Mode.NOMINAL, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 10**9, DICTIONARY, 1)
        self.say(SERVICE_TELEMETRY, Beacon(*fields), reliable=False)

    def on_delivery(self, delivery):
        message = decode_message(delivery.payload)
        match message:
            case Command():
                if message.command_id not in self.executed:
                    self.executed.append(message.command_id)
                    self.job = job_spec(message.arguments[0]) if message.opcode == "JOBS.SUBMIT" else self.job
                self.say(SERVICE_COMMAND, Verification(NODE, message.command_id, Stage.COMPLETED, CommandCode.OK))
            case PlaybackAck():
                self.erased.append((message.boot_count, message.number))
            case JobReportAck():
                self.acknowledged.append((message.job_id, message.attempt))
            case _:
                self.transfers.receive(message, delivery.source_node, self.clock.monotonic_ns())
        self.work()

    def work(self):
        job = self.job
        if self.is_working and job is not None and self.store.has(job.model) and self.store.has(job.data):
            self.job = None
            self.transfers.push(self.store.put(MASK), GROUND, self.clock.monotonic_ns())
            self.report(job)
        for one in self.transfers.poll(self.clock.monotonic_ns()):
            self.say(SERVICE_OBJECT, one.message)

    def report(self, job, node=NODE):
        report = JobReport(
            node=node,
            job_id=job.job_id,
            attempt=job.attempt,
            state=JobState.COMPLETED,
            detail="",
            model=job.model,
            data=job.data,
            result=digest_of(MASK),
            result_bytes=len(MASK),
            product=b"",
            product_bytes=0,
            measure=0.1,
            steps_run_count=4,
            resumed_count=0,
            paused_count=0,
            energy_j=1.0,
            software="1",
        )
        self.say(SERVICE_JOB, report)


def packets(node, sequence=1):
    return Packets(node, 1, sequence, 60_000, (PacketValues("JOBS.HK", (0, 0)),))


class Bench:
    """A ground and a peer on one wire; the ground can be started again on its files."""

    def __init__(self, folder=None, *, is_working=True):
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(lambda: self.loop.now_ns, 1_700_000_000 * S)
        self.folder = folder
        streams = Streams(1)
        self.disk = SimulatedDisk(1 << 24, streams.random("ground"))
        self.notes, self.completed = [], []
        self.starts_count = 0
        self.ground_link = None
        link = MemoryLink(lambda interface, frame: self.loop.call_later(DELAY_S, self.to_ground, interface, frame))
        self.node_link = link
        self.peer = Peer(self.clock, link, SimulatedDisk(1 << 24, streams.random("peer")), is_working=is_working)
        self.peer.endpoint.flush()

    def to_ground(self, interface, frame):
        if self.ground_link is not None:
            self.ground_link.deliver(interface, frame)

    def start(self):
        self.starts_count += 1
        deliver = self.node_link.deliver
        self.ground_link = MemoryLink(lambda interface, frame: self.loop.call_later(DELAY_S, deliver, interface, frame))
        self.crashes = []
        self.ground = GroundSegment(
            clock=self.clock,
            link=self.ground_link,
            disk=self.disk,
            plan=PLAN,
            interfaces=RADIO,
            fleet=[FleetNode(NODE, "sat-2", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ())],
            dictionary_digest=DICTIONARY,
            beacon_period_s=10.0,
            store_bytes=1 << 22,
            verify=lambda request, report, result, product: None,
            on_complete=lambda job, report, result: self.completed.append((job, report.node, result)),
            record=lambda kind, fields: self.notes.append((kind, fields)),
            on_crash=self.crashes.append,
            ledger_path=None if self.folder is None else self.folder / "ledger.db",
            archive_path=None if self.folder is None else self.folder / "archive.db",
            start_count=self.starts_count,
            keys=RINGS[GROUND],
        )
        self.ground.start()
        return self.ground

    def submit(self):
        store = self.ground.store
        sizes = {"model_bytes": len(MODEL), "data_bytes": len(TILE)}
        return self.ground.submit(
            JobRequest(
                kind="cloud_mask",
                model=store.put(MODEL),
                data=store.put(TILE),
                steps_count=4,
                step_mpix=10.0,
                priority=4,
                deadline_s=20_000,
                checkpoint_steps=1,
                product_measure_max=1.0,
                **sizes,
            )
        )

    def kinds(self):
        return [kind for kind, _ in self.notes]

    async def close(self):
        await self.ground.close()
        await self.peer.endpoint.close()


def virtual(scenario, *arguments):
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario(*arguments))


def test_a_job_goes_to_a_node_and_its_result_comes_back_over_the_link():
    async def scenario():
        bench = Bench()
        bench.start()
        job = bench.submit()
        await asyncio.sleep(60)
        assert bench.completed == [(job, NODE, MASK)]
        assert bench.peer.acknowledged == [(job, 1)]
        assert bench.peer.executed == [1]
        kinds = bench.kinds()
        assert kinds[:3] == ["job.accepted", "command.sent", "job.placed"]
        assert kinds.count("job.completed") == 1
        await bench.close()

    virtual(scenario)


def test_a_command_leaves_at_once_and_its_chain_ends():
    async def scenario():
        bench = Bench()
        ground = bench.start()
        await asyncio.sleep(1)
        number = ground.command(NODE, "NODE.NOOP")
        await asyncio.sleep(1)
        assert bench.peer.executed == [number]
        assert (
            "command.ended",
            {"node": "sat-2", "command": number, "stage": "COMPLETED", "code": "OK"},
        ) in bench.notes
        await bench.close()

    virtual(scenario)


def test_beacons_packets_and_events_reach_membership_and_archive():
    async def scenario():
        bench = Bench()
        ground = bench.start()
        bench.peer.beacon()
        bench.peer.say(SERVICE_TELEMETRY, packets(NODE), reliable=False)
        bench.peer.say(SERVICE_EVENT, Event(NODE, 1, 1, 0, Severity.FATAL, "node", "NODE RESET", "why"))
        await asyncio.sleep(1)
        assert ground.membership.members[NODE].beacon is not None
        assert ground.archive.beacons_count() == 1
        assert [row[3:] for row in ground.archive.events()] == [("node", "NODE RESET", "why")]
        assert [row.message for row in ground.archive.packets(NODE)] == [packets(NODE)]
        assert ground.bad_messages_count == 0
        await bench.close()

    virtual(scenario)


def test_a_segment_of_a_recorder_is_acknowledged_when_it_is_on_record_and_kept_once_when_it_comes_again():
    async def scenario():
        bench = Bench()
        ground = bench.start()
        event = Event(NODE, 1, 1, 0, Severity.FATAL, "NODE", "RESET", "why")
        records = tuple(
            map(encode_message, (packets(NODE), event, packets(OTHER), Event(OTHER, *event.__reduce__()[1][1:])))
        )
        for _ in range(2):
            bench.peer.say(SERVICE_DATA, Playback(NODE, 1, 7, (*records, b"\xff")))
            await asyncio.sleep(1)
        assert bench.peer.erased == [(1, 7), (1, 7)]
        assert [(row.recorded, row.message) for row in ground.archive.packets(NODE)] == [(True, packets(NODE))]
        assert [row[1] for row in ground.archive.events()] == [NODE]
        assert ground.archive.packets(OTHER) == [], "nobody records for another"
        assert ground.intake.refused_count == 6
        await bench.close()

    virtual(scenario)


SPEC = JobSpec(1, 1, "cloud_mask", b"m" * 32, 1, b"d" * 32, 1, 1, 1.0, 4, 100, 1, 1.0)
OTHER = NODE + 1
NOT_OWN = "that is not its sender's own"
FOREIGN = [
    (SERVICE_EVENT, Event(OTHER, 1, 1, 0, Severity.FATAL, "node", "RESET", ""), f"Event {NOT_OWN}"),
    (
        SERVICE_COMMAND,
        Verification(OTHER, 1, Stage.COMPLETED, CommandCode.OK),
        "Verification that is not its sender's own",
    ),
    (SERVICE_COMMAND, Command(1, "NODE.NOOP", 1000), f"Command {NOT_OWN}"),
    (SERVICE_JOB, JobReportAck(1, 1), f"JobReportAck {NOT_OWN}"),
    (SERVICE_JOB, SPEC, f"JobSpec {NOT_OWN}"),
    (SERVICE_JOB, Verification(NODE, 1, Stage.COMPLETED, CommandCode.OK), "Verification at service 5"),
    (SERVICE_TELEMETRY, Event(NODE, 1, 1, 0, Severity.FATAL, "node", "RESET", ""), "Event at service 2"),
    (SERVICE_TELEMETRY, packets(OTHER), f"Packets {NOT_OWN}"),
    (SERVICE_EVENT, ObjectQuery(b"q" * 32, 5), f"ObjectQuery {NOT_OWN}"),
    (SERVICE_DATA, Playback(OTHER, 1, 1, ()), f"Playback {NOT_OWN}"),
    (SERVICE_TELEMETRY, Playback(NODE, 1, 1, ()), "Playback at service 2"),
    (SERVICE_DATA, packets(NODE), "Packets at service 6"),
    (SERVICE_JOB, b"\xff no message", None),
]


@pytest.mark.parametrize(("service", "message", "why"), FOREIGN, ids=[str(row[2]) for row in FOREIGN])
def test_a_message_that_is_not_its_senders_own_is_refused_and_counted(service, message, why):
    async def scenario():
        bench = Bench()
        ground = bench.start()
        bench.peer.say(service, message)
        await asyncio.sleep(1)
        assert ground.bad_messages_count == 1
        ((kind, fields),) = bench.notes
        assert (kind, fields["node"], fields["service"]) == ("message.refused", NODE, service)
        assert fields["why"] == why or why is None
        assert ground.archive.events() == []
        await bench.close()

    virtual(scenario)


def test_nobody_beacons_or_reports_for_another():
    async def scenario():
        bench = Bench(is_working=False)
        ground = bench.start()
        bench.submit()
        await asyncio.sleep(10)
        bench.peer.transfers.push(bench.peer.store.put(MASK), GROUND, bench.clock.monotonic_ns())
        bench.peer.beacon(node=OTHER)
        bench.peer.report(bench.peer.job, node=OTHER)
        bench.peer.work()
        await asyncio.sleep(10)
        assert ground.bad_messages_count == 2
        assert ground.archive.beacons_count() == 0
        assert (bench.completed, bench.peer.acknowledged) == ([], [])
        await bench.close()

    virtual(scenario)


def test_close_gives_files_and_link_back_and_nothing_happens_after_it(tmp_path):
    async def scenario():
        bench = Bench(tmp_path)
        ground = bench.start()
        bench.submit()
        with pytest.raises(StorageError, match="database is locked"):
            Ledger(tmp_path / "ledger.db")
        await asyncio.sleep(0.001)
        await ground.close()
        notes = list(bench.notes)
        Ledger(tmp_path / "ledger.db").close()
        Archive(tmp_path / "archive.db").close()
        bench.peer.beacon()
        await asyncio.sleep(300)
        assert bench.notes == notes
        await bench.peer.endpoint.close()

    virtual(scenario)


def test_a_file_that_is_no_ledger_is_refused_at_the_start(tmp_path):
    (tmp_path / "ledger.db").write_text("not a ledger " * 100)

    async def scenario():
        bench = Bench(tmp_path)
        with pytest.raises(ConfigError, match=r"^ledger .*ledger\.db: is no database"):
            bench.start()
        await bench.peer.endpoint.close()

    virtual(scenario)


@pytest.mark.parametrize("down_at_s", [0.001, 0.015, 0.2, 5.0, 8.0])
def test_a_ground_that_starts_again_on_its_files_completes_its_open_jobs(tmp_path, down_at_s):
    """Down while the command is on its way, while objects go up, and while the node has them and computes."""

    async def scenario():
        bench = Bench(tmp_path, is_working=False)
        bench.start()
        job = bench.submit()
        await asyncio.sleep(down_at_s)
        await bench.ground.close()
        await asyncio.sleep(100)
        bench.peer.is_working = True
        bench.start()
        await asyncio.sleep(400)
        assert bench.completed == [(job, NODE, MASK)]
        assert bench.ground.ledger.counts() == {"COMPLETED": 1}
        assert bench.kinds().count("job.placed") == 1
        assert bench.peer.acknowledged == [(job, 1)]
        assert bench.peer.executed == [1], "one command, repeated under its number"
        await bench.close()

    virtual(scenario)


def test_no_session_number_comes_twice_over_a_restart(tmp_path):
    async def scenario():
        bench = Bench(tmp_path)
        numbers = []
        for _ in range(2):
            ground = bench.start()
            for _ in range(3):
                sent = ground.endpoint.send(NODE, SERVICE_JOB, encode_message(JobReportAck(1, 1)), lifetime_ms=1000)
                numbers.append(sent.sequence)
            await ground.close()
        assert numbers == sorted(set(numbers))
        await bench.peer.endpoint.close()

    virtual(scenario)


def test_a_ground_whose_rounds_have_crashed_says_so(monkeypatch):
    def stumble(self, now_ns):
        raise AssertionError("planted")

    monkeypatch.setattr("ground.cluster.Cluster.round", stumble)

    async def scenario():
        bench = Bench()
        bench.start()
        await asyncio.sleep(10)
        assert [str(error) for error in bench.crashes] == ["planted"]
        await bench.close()

    virtual(scenario)
