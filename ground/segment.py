"""The ground segment: the asyncio shell that wires endpoint, transfers, cluster and archive on one clock.

Messages are handled as they arrive; a rate group runs the scheduling rounds. Nothing reaches a node but through the
link.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flightsw.config import InterfaceConfig
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError, MessageError
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.agent_values import AgentLimits
from flightsw.net.contacts import ContactPlan
from flightsw.net.echo import PING_SERVICE
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyFault, KeyRing, KeyStore, without_keys
from flightsw.net.security import BundleSecurity, Refusal, SecurityPolicy
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import Clock, Disk, Link, Log
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_DATA,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Beacon,
    Chunk,
    Dump,
    Event,
    JobReport,
    ObjectQuery,
    ObjectStatus,
    ObjectWant,
    Packets,
    Playback,
    TimeQuery,
    TimeReply,
    Verification,
    decode_message,
    encode_message,
)
from ground.archive import Archive
from ground.audits import Audits
from ground.cluster import Cluster
from ground.commands import checked_arguments
from ground.fleet import ClusterConfig, FleetNode, OnComplete, Verify
from ground.intake import Intake
from ground.keys import KeyRotations
from ground.ledger import JobRequest, Ledger
from ground.membership import Membership
from ground.ping import Pinger
from ground.time_correlation import TimeCorrelation
from ground.update_book import UpdateBook
from ground.updates import Campaigns

ROUND_S: Final = 5.0
"""Period of the scheduling rounds [s]: short against a pass of some minutes."""
OBJECT_LIFETIME_MS: Final = 4 * 3_600_000
"""Objects may wait for passes [ms]."""
TIME_LIFETIME_MS: Final = 10_000
"""A query that took longer than this has no answer that counts [ms]."""
NS_PER_S: Final = 1_000_000_000
SESSION_BITS: Final = 32
"""Session and bundle numbers of one start; the start count stands above them."""
OBJECT_MESSAGES: Final = (Chunk, ObjectQuery, ObjectStatus, ObjectWant)


class GroundSegment:
    """Mission control for a fleet.

    Args:
        clock, link, disk: the ground's ports. plan: predicted contacts. interfaces: one for each antenna. fleet: the
        nodes. dictionary_digest: of the command dictionary that the ground speaks. beacon_period_s: how often nodes
        beacon. verify, on_complete: as for `Cluster`. record: takes (kind, fields) of what happens. on_crash: told of
        the exception that ended the scheduling rounds: a ground that places nothing must not look alive. config:
        patience and limits. ledger_path, archive_path: files, or None for memory. start_count: rises with each start on
        the same ledger, so that no session number comes twice. limits: of the bundle agent. keys: as provisioned; what
        the disk holds of them rules, and without keys no node obeys. policy: what is signed.

    Raises:
        ConfigError: ledger or archive cannot be used.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        link: Link,
        disk: Disk,
        plan: ContactPlan,
        interfaces: tuple[InterfaceConfig, ...],
        fleet: Sequence[FleetNode],
        dictionary_digest: bytes,
        beacon_period_s: float,
        store_bytes: int,
        verify: Verify,
        on_complete: OnComplete,
        record: Log,
        on_crash: Callable[[BaseException], None],
        config: ClusterConfig | None = None,
        ledger_path: Path | None = None,
        archive_path: Path | None = None,
        start_count: int = 1,
        limits: AgentLimits | None = None,
        keys: KeyRing | None = None,
        policy: SecurityPolicy | None = None,
    ) -> None:
        config = config or ClusterConfig()
        self.node = config.node
        self.store = ObjectStore(disk, quota_bytes=store_bytes)
        self.transfers = Transfers(self.store, local=config.node)
        self.ledger = Ledger(ledger_path)
        self.archive = Archive(archive_path)
        self.intake = Intake(self.archive)
        self.audits = Audits(disk, self.archive)
        self.keys = KeyStore(without_keys(config.node) if keys is None else keys, disk)
        self.membership = Membership(
            tuple(node.node for node in fleet), dictionary_digest, beacon_period_s, self._has_key
        )
        self.cluster = Cluster(
            config,
            ledger=self.ledger,
            archive=self.archive,
            membership=self.membership,
            store=self.store,
            transfers=self.transfers,
            plan=plan,
            fleet=fleet,
            verify=verify,
            on_complete=on_complete,
            has_way=lambda node, now_ns, within_ns: self.agent.has_way(node, now_ns, within_ns),
            dictionary_digest=dictionary_digest,
        )
        self._policy = policy or SecurityPolicy()
        security = BundleSecurity(config.node, self.keys, disk, self._policy)
        self.agent = BundleAgent(
            config.node, plan, interfaces, session_base=start_count << SESSION_BITS, limits=limits, security=security
        )
        self.endpoint = Endpoint(clock, link, self.agent, self._on_delivery, self._on_refusal)
        self.bad_messages_count = 0
        self._plan = plan
        self._interfaces = tuple(one.index for one in interfaces)
        self._numbers = {one.name: one.node for one in fleet}
        self._clock = clock
        self._record = record
        self._on_crash = on_crash
        self._task: asyncio.Task[None] | None = None
        self._set_up_operations(config, {node.node: node.name for node in fleet})

    def _set_up_operations(self, config: ClusterConfig, names: dict[int, str]) -> None:
        """What people start: pings, key rotations, updates, time correlation."""
        lifetime_ns = config.command_lifetime_s * NS_PER_S
        self.pinger = Pinger(self.endpoint, self._clock)
        self.rotations = KeyRotations(self.keys, self.cluster.command, self._record, lifetime_ns)
        self.updates = Campaigns(
            UpdateBook(self.ledger),
            self.store,
            self.cluster.command,
            lifetime_ns,
            self._last_beacon,
            lambda node: names.get(node, str(node)),
            self._record,
        )
        self.times = TimeCorrelation(
            self._clock, self._light_time_ns, self._ask_time, config.time_period_s, tuple(sorted(names))
        )

    def start(self) -> None:
        """Begin: contacts that are open are used from now on. Needs a running event loop."""
        self.endpoint.flush()
        self.cluster.resume(self._clock.monotonic_ns())
        self.rotations.resume(self._clock.monotonic_ns())
        self.updates.resume(self._clock.monotonic_ns())
        self._task = asyncio.get_running_loop().create_task(self._rounds(), name="ground/rounds")
        self._task.add_done_callback(self._rounds_ended)

    async def close(self) -> None:
        """Stop, and give files and link back."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        await self.endpoint.close()
        self.archive.close()
        self.ledger.close()

    def submit(self, request: JobRequest) -> int:
        """Accept a job; its objects must be in the store. It is placed with the next round."""
        job_id = self.cluster.submit(request, self._clock.monotonic_ns())
        self._tell()
        return job_id

    def command(self, node: int | str, opcode: str, /, *arguments: object, **named: object) -> int:
        """Send a command to a node; returns its number.

        Args:
            node: its number or its name.
            opcode: COMPONENT.COMMAND of the dictionary.
            arguments, named: of the command, in order or by name.

        Raises:
            ConfigError: no such node or opcode, an argument is wrong, or the node speaks another dictionary; those
                that all have in common are sent all the same (`CommandSpec.is_common`).
        """
        if isinstance(node, str):
            if node not in self._numbers:
                raise ConfigError(f"command: node is {node!r}, expected a name of the fleet")
            node = self._numbers[node]
        arguments = checked_arguments(opcode, arguments, named)
        refusal = self.membership.dictionary_refusal(node)
        if refusal is not None and not flight_dictionary().commands[opcode].is_common:
            raise ConfigError(f"command: {refusal}")
        command_id = self.cluster.command(node, opcode, arguments, self._clock.monotonic_ns())
        self._act()
        return command_id

    def rotate_key(self, node: int, secret: bytes) -> int:
        """Give a node a new key, over the air; returns its number. What comes of it is recorded.

        Args:
            node: whose key.
            secret: 32 bytes, fresh from a source of entropy.

        Raises:
            ConfigError: as of `KeyRotations.begin`.
        """
        key_id = self.rotations.begin(node, secret, self._clock.monotonic_ns())
        self._act()
        return key_id

    async def _rounds(self) -> None:
        while True:
            now_ns = self._clock.monotonic_ns()
            self.cluster.reach.refresh(now_ns)
            self.cluster.round(now_ns)
            self.rotations.round(now_ns)
            self.updates.round(now_ns)
            self.times.round(now_ns)
            self._act()
            await asyncio.sleep(ROUND_S)

    def _rounds_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.service == PING_SERVICE:
            self.pinger.receive(delivery)
            return
        if delivery.record is not None:
            self._record("bundle.reported", delivery.record.fields())
            return
        try:
            message = decode_message(delivery.payload)
        except MessageError as error:
            self._bad(delivery, str(error))
            return
        now_ns = self._clock.monotonic_ns()
        cluster, service = self.cluster, delivery.service
        # Beacons are by far the most, hence first; by type, because `isinstance` is slow for the structs of messages.
        if type(message) is Beacon and service == SERVICE_TELEMETRY and message.node == delivery.source_node:
            if self._policy.sign_telemetry and not delivery.authenticated and message.key_id:
                self._bad(delivery, f"unsigned beacon of a node that has key {message.key_id}")
                return
            cluster.on_beacon(message, delivery.payload, now_ns)
            if not cluster.has_news:
                return
        elif service == SERVICE_OBJECT and isinstance(message, OBJECT_MESSAGES):
            self.transfers.receive(message, delivery.source_node, now_ns)
        elif isinstance(message, OBJECT_MESSAGES) or getattr(message, "node", None) != delivery.source_node:
            self._bad(delivery, f"{type(message).__name__} that is not its sender's own")
            return
        elif service == SERVICE_TELEMETRY and isinstance(message, Packets):
            self.intake.packets(message, delivery.payload, now_ns)
            return
        elif service == SERVICE_TELEMETRY and isinstance(message, TimeReply):
            if delivery.authenticated or not self._policy.sign_telemetry or not self._signs(message.node):
                self.times.receive(message)
            else:
                self._bad(delivery, "unsigned time of a node that has a key")
            return
        elif service == SERVICE_DATA and isinstance(message, Dump):
            if self.intake.dump(message, now_ns):
                self._record("dump.arrived", {"node": message.node, "what": message.kind, "number": message.number})
            return
        elif service == SERVICE_DATA and isinstance(message, Playback):
            ack = encode_message(self.intake.playback(message, now_ns))
            self.endpoint.send(message.node, SERVICE_DATA, ack, lifetime_ms=OBJECT_LIFETIME_MS)
            return
        elif service == SERVICE_EVENT and isinstance(message, Event):
            cluster.on_event(message, now_ns)
            self.updates.on_event(message, now_ns)
        elif service == SERVICE_COMMAND and isinstance(message, Verification):
            cluster.on_verification(message, now_ns)
            self.rotations.on_verification(message, now_ns)
            self.updates.on_verification(message, now_ns)
        elif service == SERVICE_JOB and isinstance(message, JobReport):
            cluster.on_report(message, now_ns)
        else:
            self._bad(delivery, f"{type(message).__name__} at service {service}")
            return
        self._act()

    def _act(self) -> None:
        """Send what the cluster and the transfers want sent, and tell what happened."""
        now_ns = self._clock.monotonic_ns()
        self.cluster.on_transfers(now_ns)
        self._tell()  # first: on a link without delay the answer comes before `send` returns
        for message in self.cluster.take_outgoing():
            if message.confidential and self.keys.sending(message.destination) is None:
                self._record("message.unsent", {"node": message.destination, "why": "no key to encrypt it with"})
                continue
            self.endpoint.send(
                message.destination,
                message.service,
                message.payload,
                lifetime_ms=message.lifetime_ms,
                priority=message.priority,
                reliable=True,
                confidential=message.confidential,
                watch=message.command_id,
            )
        while self.agent.departed:
            self.cluster.on_departure(self.agent.departed.pop(0), now_ns)
        for transfer in self.transfers.poll(now_ns):
            self.endpoint.send(
                transfer.destination,
                SERVICE_OBJECT,
                encode_message(transfer.message),
                lifetime_ms=OBJECT_LIFETIME_MS,
                priority=transfer.priority,
                reliable=True,
                padding_bytes=transfer.padding_bytes,
            )

    def _tell(self) -> None:
        for kind, fields in self.cluster.take_notes():
            self._record(kind, fields)

    def _on_refusal(self, refusal: Refusal) -> None:
        reason, source, service = refusal
        self._record("security.refused", {"reason": str(reason), "source": source, "service": service})

    def _last_beacon(self, node: int) -> tuple[Beacon, int] | None:
        member = self.membership.members.get(node)
        return None if member is None or member.beacon is None else (member.beacon, member.heard_ns)

    def _signs(self, node: int) -> bool:
        beacon = self._last_beacon(node)
        return beacon is not None and bool(beacon[0].key_id)

    def _ask_time(self, node: int, query: TimeQuery) -> None:
        self.endpoint.send(
            node, SERVICE_TELEMETRY, encode_message(query), lifetime_ms=TIME_LIFETIME_MS, priority=0, reliable=False
        )

    def _light_time_ns(self, node: int, now_ns: int) -> int | None:
        for interface in self._interfaces:
            contact = self._plan.at(self.node, interface, now_ns)
            if contact is not None and contact.target == node:
                return contact.light_time_ns
        return None

    def _has_key(self, node: int, key_id: int) -> bool:
        return not isinstance(self.keys.verifying(node, key_id), KeyFault)

    def _bad(self, delivery: Delivery, why: str) -> None:
        self.bad_messages_count += 1
        self._record("message.refused", {"node": delivery.source_node, "service": delivery.service, "why": why})
