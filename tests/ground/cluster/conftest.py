"""A cluster of the ground, and scripted nodes that say what a test tells them to say."""

import pytest

from flightsw.net.contacts import Contact, ContactPlan
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.objects.transfers import Transfers
from flightsw.wire.messages import (
    Beacon,
    Chunk,
    Command,
    CommandCode,
    JobReport,
    JobReportAck,
    JobState,
    Mode,
    Stage,
    Verification,
    decode_message,
    encode_message,
    job_spec,
)
from ground.archive import Archive
from ground.cluster import Cluster
from ground.fleet import ClusterConfig, FleetNode
from ground.ledger import JobRequest, Ledger
from ground.membership import Membership
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
DICTIONARY = b"d" * 8
CONFIG = ClusterConfig()


MODEL, RESULT = b"model" * 10, b"mask"


def plan(nodes, start_s=0, end_s=200_000):
    return ContactPlan(
        Contact(start_s * S, end_s * S, a, a_interface, b, b_interface, 1e6, 10**7)
        for node in nodes
        for a, a_interface, b, b_interface in ((1, node, node, 0), (node, 0, 1, node))
    )


def beacon(node, boot=1, uptime_s=100, dictionary=DICTIONARY):
    return Beacon(node, boot, uptime_s, 0, Mode.NOMINAL, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 10**9, dictionary)


class World:
    """A cluster, and scripted nodes that say what a test tells them to say."""

    def __init__(self, nodes=(2, 3), contact_plan=None, config=CONFIG, ledger_path=None, disk=None, verify=None):
        self.nodes = nodes
        self.disk = SimulatedDisk(1 << 24, Streams(1).random("disk")) if disk is None else disk
        self.store = ObjectStore(self.disk, quota_bytes=1 << 23)
        self.transfers = Transfers(self.store, local=1)
        self.ledger = Ledger(ledger_path)
        self.archive = Archive()
        self.membership = Membership(nodes, DICTIONARY, 10.0)
        self.completed, self.notes, self.sent, self.objects = [], [], [], []
        self.cluster = Cluster(
            config,
            ledger=self.ledger,
            archive=self.archive,
            membership=self.membership,
            store=self.store,
            transfers=self.transfers,
            plan=plan(nodes) if contact_plan is None else contact_plan,
            fleet=[FleetNode(node, f"sat-{node}", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ()) for node in nodes],
            verify=verify or (lambda request, report, result, product: None),
            on_complete=lambda job, report, result: self.completed.append((job, report.node, result)),
        )

    def close(self):
        self.ledger.close()
        self.archive.close()

    def take(self, now_s):
        """What the shell does after each message; returns the messages that left now."""
        self.cluster.on_transfers(now_s * S)
        self.notes += self.cluster.take_notes()
        new = [(one.destination, decode_message(one.payload)) for one in self.cluster.take_outgoing()]
        self.sent += new
        polled = [(one.destination, one.message) for one in self.transfers.poll(now_s * S)]
        self.objects += polled
        return new + polled

    def round(self, now_s):
        self.cluster.reach.refresh(now_s * S)
        self.cluster.round(now_s * S)
        return self.take(now_s)

    def rounds(self, start_s, end_s, step_s=30):
        return [message for now_s in range(start_s, end_s, step_s) for message in self.round(now_s)]

    def submit(self, data=b"tile", now_s=0, deadline_s=50_000, priority=4):
        request = JobRequest(
            kind="cloud_mask",
            model=self.store.put(MODEL),
            model_bytes=len(MODEL),
            data=self.store.put(data),
            data_bytes=len(data),
            steps_count=4,
            step_mpix=10.0,
            priority=priority,
            deadline_s=deadline_s,
            checkpoint_steps=1,
            product_measure_max=1.0,
        )
        return self.cluster.submit(request, now_s * S)

    def row(self, job=1):
        return next((row for row in self.ledger.open_jobs() if row.job_id == job), None)

    def report(self, job=1, state=JobState.COMPLETED, row=None, **changes):
        row = self.row(job) if row is None else row
        values = {
            "node": row.node,
            "job_id": job,
            "attempt": row.attempt,
            "state": state,
            "detail": "",
            "model": row.request.model,
            "data": row.request.data,
            "result": digest_of(RESULT),
            "result_bytes": len(RESULT),
            "product": b"",
            "product_bytes": 0,
            "measure": 0.1,
            "steps_run_count": 4,
            "resumed_count": 0,
            "paused_count": 0,
            "energy_j": 1.0,
            "software": "1",
        }
        return JobReport(**(values | changes))

    def say(self, report, now_s):
        self.cluster.on_report(report, now_s * S)
        return self.take(now_s)

    def bring(self, data, node, now_s):
        """An object comes down."""
        self.transfers.receive(Chunk(digest_of(data), len(data), 0, data), node, now_s * S)
        return self.take(now_s)

    def answer(self, command_id, node, now_s, stage=Stage.COMPLETED, code=CommandCode.OK, detail=""):
        self.cluster.on_verification(Verification(node, command_id, stage, code, detail), now_s * S)
        return self.take(now_s)

    def hear(self, one, now_s):
        self.cluster.on_beacon(one, encode_message(one), now_s * S)
        return self.take(now_s)

    def noted(self, kind):
        return [fields for one, fields in self.notes if one == kind]

    def retry_reasons(self):
        return [fields["reason"] for fields in self.noted("job.retried")]

    def ends(self):
        return [kind for kind, _ in self.notes if kind in ("job.completed", "job.failed")]


def commands(messages, opcode):
    return [(node, one) for node, one in messages if isinstance(one, Command) and one.opcode == opcode]


def specs(messages):
    """(node, job, attempt) of each submission."""
    found = [(node, job_spec(one.arguments[0])) for node, one in commands(messages, "JOBS.SUBMIT")]
    return [(node, spec.job_id, spec.attempt) for node, spec in found]


def acks(messages):
    return [(node, one.job_id, one.attempt) for node, one in messages if isinstance(one, JobReportAck)]


@pytest.fixture
def world():
    one = World()
    yield one
    one.close()


@pytest.fixture
def single():
    one = World(nodes=(2,))
    yield one
    one.close()


def other(node):
    return 5 - node


@pytest.fixture(scope="session")
def make_world():
    return World


@pytest.fixture(scope="session", name="commands")
def _commands():
    return commands


@pytest.fixture(scope="session", name="specs")
def _specs():
    return specs


@pytest.fixture(scope="session", name="acks")
def _acks():
    return acks


@pytest.fixture(scope="session", name="beacon")
def _beacon():
    return beacon


@pytest.fixture(scope="session", name="plan")
def _plan():
    return plan


@pytest.fixture(scope="session", name="other")
def _other():
    return other
