"""`python -m ground`: the ground segment as a program of its own, with the same `GroundSegment` as in a simulation.

A kill at any instant loses no accepted job: the ledger is written before anything is acted upon, its instants count
from T+0 and so go on over a restart, and the number of starts is on the disk. docs/programs.md has the settings, exit
codes and an example.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from flightsw.config import InterfaceConfig, NonNegative, Positive, Share, SunInterval
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError, FlatrackError, LinkError, WireError
from flightsw.host.clock import HostClock
from flightsw.host.control import ControlPeer, serve
from flightsw.host.files import FileDisk
from flightsw.host.journal import Journal
from flightsw.host.loop import PacedLoop
from flightsw.host.program import Ending, Exit, meet_bench, misconfigured, open_wire, run, wait_for_zero
from flightsw.host.settings import (
    ClockSettings,
    KeySettings,
    LinkSettings,
    StorageSettings,
    load_json,
    load_ring,
    load_settings,
)
from flightsw.net.accounts import frame_counts, queue_counts
from flightsw.net.agent_values import AgentLimits
from flightsw.net.ltp_values import LtpConfig
from flightsw.net.plans import PlanRow, plan_of
from flightsw.net.security import SecurityPolicy
from flightsw.ports import Log
from flightsw.storage.counters import raise_counter
from flightsw.wire.messages import JobReport
from ground.control import UserPort
from ground.fleet import ClusterConfig, FleetNode
from ground.results import ResultJudge
from ground.segment import GroundSegment

NAME: Final = "ground"
STARTS_FILE: Final = "starts"
NS_PER_S: Final = 1_000_000_000
ARCHIVE_PERIOD_S: Final = 10.0
"""Telemetry that is not yet written when the program is killed is lost: at most this much [s]."""
FLEET_MAX: Final = 10_000
"""Nodes of one fleet: three times the largest that is planned."""


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One node of the fleet: `ground.fleet.FleetNode`."""

    node: Annotated[int, msgspec.Meta(ge=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    mpix_per_s: Positive
    compute_w: NonNegative
    idle_w: NonNegative
    array_w: NonNegative
    battery_j: Positive
    reserve: Share
    sun: tuple[tuple[int, int] | SunInterval, ...] = ()
    """Predicted intervals in sunlight [ns since T+0]."""

    def known(self) -> FleetNode:
        """The node as the ground segment takes it."""
        sun = tuple(one if isinstance(one, SunInterval) else SunInterval(*one) for one in self.sun)
        return FleetNode(**(msgspec.structs.asdict(self) | {"sun": sun}))


class ResultSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`result`: what a mask must look like beyond its digest; products are held against their factors."""

    kind: Literal["cloud_mask"] = "cloud_mask"
    tile_px: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    """Side of a mask [pixel]."""

    def verify(self, report: JobReport, result: bytes, product: bytes | None) -> str | None:
        """Why a mask cannot be one, or None."""
        from flightsw.compute.cloud_mask import decode_mask  # needs numpy, which a ground without results does not

        try:
            shape = decode_mask(result).shape
        except WireError as error:
            return str(error)
        expected = (self.tile_px, self.tile_px)
        return None if shape == expected else f"mask is {shape}, expected {expected}"


class SegmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[ground]`: the segment itself."""

    node: Annotated[int, msgspec.Meta(ge=1)] = 1
    interfaces: Annotated[tuple[InterfaceConfig, ...], msgspec.Meta(min_length=1)]
    beacon_period_s: Positive = 10.0
    """How often nodes beacon [s]."""
    fleet: Annotated[tuple[FleetSettings, ...], msgspec.Meta(min_length=1, max_length=FLEET_MAX)]
    time_period_s: NonNegative = 0.0
    """As of `ground.fleet.ClusterConfig`."""
    ltp_margin_s: Positive = 0.5
    sign_telemetry: bool = True
    """Both as of `flightsw.config.NodeConfig`."""
    store_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 50)]
    """What objects may take of the storage [bytes]."""


class GroundSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of the ground's program."""

    ground: SegmentSettings
    clock: ClockSettings
    link: LinkSettings
    storage: StorageSettings
    plan: str
    """JSON file of the predicted contacts (`flightsw.net.plans`)."""
    ledger: str = "ledger.db"
    archive: str = "archive.db"
    result: ResultSettings
    keys: KeySettings | None = None


class GroundProgram:
    """One start of the ground segment.

    Args:
        settings: of the program.
        base: folder that paths in the settings are relative to.
        control: where users connect, or None.
        bench: control socket of a bench, or None.
        loop: what it runs on.
    """

    def __init__(
        self, settings: GroundSettings, base: Path, control: Path | None, bench: Path | None, loop: PacedLoop
    ) -> None:
        self._settings = settings
        self._base = base
        self._control = control
        self._bench = bench
        self._loop = loop
        self._peer: ControlPeer | None = None

    async def compose(self, ending: Ending) -> Callable[[], Awaitable[Exit]]:
        """Put the segment together; returns what runs it.

        Raises:
            FlatrackError: a setting, a file or a socket cannot be used.
        """
        async with AsyncExitStack() as resources:
            ground, log = await self._compose(ending, resources)
            kept = resources.pop_all()
        return lambda: self._run(ground, log, kept, ending)

    async def _compose(self, ending: Ending, resources: AsyncExitStack) -> tuple[GroundSegment, Log]:
        settings, base, loop = self._settings, self._base, self._loop
        fleet = tuple(node.known() for node in settings.ground.fleet)
        _check_fleet(fleet)
        plan = plan_of(load_json(base / settings.plan, list[PlanRow]), str(base / settings.plan))
        clock = HostClock(loop, settings.clock.epoch_utc_ns)
        log: Log = Journal(NAME, lambda: loop.now_ns, sys.stdout)
        if self._bench is not None:
            self._peer = await meet_bench(self._bench, ending, resources, loop)
            log = self._log_to_bench
        disk = FileDisk(base / settings.storage.folder, settings.storage.capacity_bytes)
        resources.callback(disk.close)
        link = await open_wire(settings.link, settings.ground.node, settings.ground.interfaces, resources)
        judge = ResultJudge(settings.result.verify, lambda digest: ground.store.get(digest))
        ground = GroundSegment(
            clock=clock,
            link=link,
            disk=disk,
            plan=plan,
            interfaces=settings.ground.interfaces,
            fleet=fleet,
            dictionary_digest=flight_dictionary().digest,
            beacon_period_s=settings.ground.beacon_period_s,
            store_bytes=settings.ground.store_bytes,
            verify=judge.objection,
            on_complete=self._completed,
            record=log,
            on_crash=ending.fail,
            config=ClusterConfig(node=settings.ground.node, time_period_s=settings.ground.time_period_s),
            ledger_path=base / settings.ledger,
            archive_path=base / settings.archive,
            start_count=raise_counter(disk, STARTS_FILE),
            limits=AgentLimits(ltp=LtpConfig(margin_ns=round(settings.ground.ltp_margin_s * NS_PER_S))),
            keys=load_ring(settings.keys, base, settings.ground.node),
            policy=SecurityPolicy(settings.ground.sign_telemetry),
        )
        resources.push_async_callback(ground.close)
        users = UserPort(ground, clock, fleet, judge.kinds).handlers()
        if self._control is not None:
            server = await serve(self._control, users)
            resources.push_async_callback(server.close)
        if self._peer is not None:
            self._peer.set_handlers(
                users | {"accounts": lambda: _accounts(ground), "stop": lambda: ending.tell(Exit.STOPPED)}
            )
            await self._peer.call("hello", NAME, os.getpid())
        return ground, log

    async def _run(self, ground: GroundSegment, log: Log, resources: AsyncExitStack, ending: Ending) -> Exit:
        archiving = asyncio.create_task(self._start_and_archive(ground, log), name="archive")
        archiving.add_done_callback(lambda done: None if done.cancelled() else ending.fail(_error_of(done)))
        try:
            return await ending.wait()
        finally:
            archiving.cancel()
            await resources.aclose()

    async def _start_and_archive(self, ground: GroundSegment, log: Log) -> None:
        await wait_for_zero(self._loop, log)
        ground.start()
        while True:
            await asyncio.sleep(ARCHIVE_PERIOD_S)
            ground.archive.flush()

    def _log_to_bench(self, kind: str, fields: dict[str, object]) -> None:
        self._tell("log", self._loop.now_ns, kind, fields)

    def _completed(self, job: int, report: JobReport, result: bytes) -> None:
        self._tell("completed", job, msgspec.to_builtins(report, builtin_types=(bytes,)), result)

    def _tell(self, method: str, *params: Any) -> None:
        if self._peer is None:
            return
        try:
            self._peer.notify(method, *params)
        except LinkError:  # the bench has gone: the program ends, as `closed` tells it
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ground", description="The ground segment as a program. docs/programs.md"
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file with the ground's settings")
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="where users connect; without it none can")
    parser.add_argument("--bench", type=Path, metavar="SOCKET", help="control socket of a bench; without it none can")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config, GroundSettings)
        loop = PacedLoop(settings.clock.zero_utc_ns, settings.clock.time_scale)
    except FlatrackError as error:
        return misconfigured(NAME, error)
    return run(NAME, loop, GroundProgram(settings, given.config.parent, given.control, given.bench, loop).compose)


def _check_fleet(fleet: tuple[FleetNode, ...]) -> None:
    seen: set[int | str] = set()
    for one in fleet:
        for what, value in (("node", one.node), ("name", one.name)):
            if value in seen:
                raise ConfigError(f"ground.fleet: {what} = {value!r}: comes twice, expected each once")
            seen.add(value)


def _accounts(ground: GroundSegment) -> dict[str, Any]:
    """The books of the segment."""
    return {
        "counts": frame_counts(ground.agent),
        "queues": queue_counts(ground.agent),
        "dropped": ground.agent.counters.bundles_dropped_count,
        "uplinked_bytes": ground.cluster.counts.uplinked_bytes,
    }


def _error_of(task: asyncio.Task[None]) -> BaseException:
    error = task.exception()
    assert error is not None, "the archive is written until the task is cancelled"
    return error
