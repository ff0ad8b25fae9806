"""The ground segment inside the bench's own loop."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flightsw.compute import cloud_mask
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ControlError, MessageError
from flightsw.host.control import Method
from flightsw.net.agent import BundleAgent
from flightsw.net.agent_values import AgentLimits
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing
from flightsw.net.ltp_values import LtpConfig
from flightsw.ports import Clock, Disk, Link, Log
from flightsw.wire.messages import JobReport
from ground.control import UserPort
from ground.fleet import FleetNode
from ground.ledger import JobRequest
from ground.results import ResultJudge
from ground.segment import GroundSegment
from hil.bench import composition
from hil.bench.accounts import Accounts
from hil.bench.composition import GROUND_DISK_BYTES
from hil.bench.scenario import Scenario
from hil.bench.sky import Sky
from hil.bench.workload import Workload

NS_PER_S: Final = 1_000_000_000


def local_segment(
    scenario: Scenario,
    sky: Sky,
    plan: ContactPlan,
    fleet: tuple[FleetNode, ...],
    *,
    clock: Clock,
    link: Link,
    disk: Disk,
    workload: Workload | None,
    on_complete: Callable[[int, JobReport, bytes], None],
    record: Log,
    on_crash: Callable[[BaseException], None],
    folder: Path | None,
    keys: KeyRing,
    ltp_margin_s: float,
) -> GroundSegment:
    """The ground segment of a scenario; arguments as of `GroundSegment`, databases in a folder or in memory.

    Masks of the workload must have the shape of its tiles.
    """

    def verify(request: JobRequest, report: JobReport, result: bytes, product: bytes | None) -> str | None:
        judge = ResultJudge(lambda *_: mask_objection(workload, request, result), segment.store.get)
        return judge.objection(request, report, result, product)

    segment = GroundSegment(
        clock=clock,
        link=link,
        disk=disk,
        plan=plan,
        interfaces=composition.ground_interfaces(scenario, sky),
        fleet=fleet,
        dictionary_digest=flight_dictionary().digest,
        beacon_period_s=scenario.manager.beacon_period_s,
        store_bytes=GROUND_DISK_BYTES // 2,
        verify=verify,
        on_complete=on_complete,
        record=record,
        on_crash=on_crash,
        ledger_path=None if folder is None else folder / "ledger.db",
        archive_path=None if folder is None else folder / "archive.db",
        keys=keys,
        limits=AgentLimits(ltp=LtpConfig(margin_ns=round(ltp_margin_s * NS_PER_S))),
    )
    return segment


def mask_objection(workload: Workload | None, request: JobRequest, result: bytes) -> str | None:
    """Why a result cannot be the mask of a job, or None: of one of the workload's, or of an operator's."""
    if workload is not None and any(item.digest == request.data for item in workload.items):
        return workload.objection(result)
    try:
        cloud_mask.decode_mask(result)
    except MessageError as error:
        return str(error)
    return None


class LocalGround:
    """Implements `hil.bench.member.Ground`.

    Args:
        segment: the ground segment; it runs from now on.
        clock: its clock.
        fleet: its nodes.
    """

    is_exact = True

    def __init__(self, segment: GroundSegment, clock: Clock, fleet: tuple[FleetNode, ...]) -> None:
        self.segment = segment
        handlers = UserPort(segment, clock, fleet, ResultJudge.kinds).handlers()
        self._methods = {name: Method(name, handler) for name, handler in handlers.items()}

    @property
    def agent(self) -> BundleAgent | None:
        """The bundle agent."""
        return self.segment.agent

    def put_object(self, data: bytes) -> None:
        """Put an object into the ground's store."""
        self.segment.store.put(data)

    def submit(self, request: JobRequest, accepted: Callable[[int], None]) -> None:
        """Hand over a job."""
        accepted(self.segment.submit(request))

    async def ask(self, method: str, *params: Any) -> Any:
        """Ask it as over a control socket. Raises: FlatrackError."""
        if method not in self._methods:
            raise ControlError(f"{method}: no such method, expected one of {', '.join(sorted(self._methods))}")
        answer = self._methods[method](list(params))
        return await answer if inspect.isawaitable(answer) else answer

    def accounts(self) -> Accounts:
        """The books now."""
        return Accounts.of_agent(self.segment.agent)

    @property
    def uplinked_bytes(self) -> int:
        """Bytes of models and tiles that reached satellites."""
        return self.segment.cluster.counts.uplinked_bytes

    async def close(self) -> None:
        """End it; its files are written."""
        await self.segment.close()
