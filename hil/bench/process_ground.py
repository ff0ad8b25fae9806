"""Mission control as a program of its own: `python -m ground`, on a lab wire, under the bench's eyes."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from flightsw.errors import ControlError, LinkError
from flightsw.host.control import ControlPeer, Handler
from flightsw.link.pacing import lab_s
from flightsw.net.agent import BundleAgent
from flightsw.wire.messages import JobReport
from ground.ledger import JobRequest
from hil.bench.accounts import Accounts, NodeCounts, parse_ground
from hil.bench.lab_wires import LabWire
from hil.bench.processes import Program
from hil.bench.remote_books import ANSWER_S_MAX
from hil.bench.sky import GROUND_NODE
from hil.channel.relay import Relay

NAME: Final = "ground"


class ProcessGround:
    """Implements `hil.bench.member.Ground`.

    Objects and jobs are handed over one after the other, in the order of the calls.

    Args:
        program: its program, ready to be started; the owner passes its ends on to `ended`.
        wire: the bench's end of its lab wire.
        relay: joins the wires.
        log: takes (t_ns, kind, fields) of what it notes.
        on_complete: told (job, report, result) of each job that is on record as completed.
        on_crash: told of an end that nobody asked for, and of work that it refused.
    """

    def __init__(
        self,
        *,
        program: Program,
        wire: LabWire,
        relay: Relay,
        log: Callable[[int, str, dict[str, object]], None],
        on_complete: Callable[[int, JobReport, bytes], None],
        on_crash: Callable[[str, BaseException], None],
    ) -> None:
        self.program = program
        self.wire = wire
        self.said_hello = asyncio.Event()
        self._relay = relay
        self._log = log
        self._on_complete = on_complete
        self._on_crash = on_crash
        self._peer: ControlPeer | None = None
        self._accounts = Accounts(NodeCounts(), (), 0)
        self._uplinked_bytes = 0
        self._is_stopping = False
        self._work: asyncio.Queue[tuple[str, Any, Callable[[int], None] | None]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    # -- the Ground

    @property
    def agent(self) -> BundleAgent | None:
        """Always None: it runs elsewhere."""
        return None

    @property
    def is_exact(self) -> bool:
        """Whether the wire lost nothing."""
        return self.wire.is_exact

    def put_object(self, data: bytes) -> None:
        """Put an object into the ground's store."""
        self._work.put_nowait(("put_object", data, None))

    def submit(self, request: JobRequest, accepted: Callable[[int], None]) -> None:
        """Hand over a job."""
        self._work.put_nowait(("submit", msgspec.structs.asdict(request), accepted))

    async def ask(self, method: str, *params: Any) -> Any:
        """Ask it as over a control socket. Raises: FlatrackError."""
        if self._peer is None:
            raise ControlError(f"{method}: the ground does not run")
        return await self._peer.call(method, *params)

    def accounts(self) -> Accounts:
        """The books as last heard."""
        return self._accounts

    @property
    def uplinked_bytes(self) -> int:
        """Bytes of models and tiles that reached satellites, as last heard."""
        return self._uplinked_bytes

    async def close(self) -> None:
        """End the program; its files are written."""
        self._is_stopping = True
        if self._worker is not None:
            self._worker.cancel()
        await self.program.stop()

    # -- the bench's side

    def start(self) -> None:
        """Start the program."""
        self.program.start()

    def handlers(self) -> dict[str, Handler]:
        """What the program may tell the bench."""
        return {"log": self._take_log, "completed": self._take_completed}

    def hello(self, peer: ControlPeer) -> None:
        """The program is ready: plug in its wire and begin to hand over work."""
        self._peer = peer
        self._relay.attach(GROUND_NODE, self.wire.deliver)
        self._worker = asyncio.get_running_loop().create_task(self._hand_over(peer), name="ground/work")
        self.said_hello.set()

    async def refresh(self) -> None:
        """Ask for its books."""
        if self._peer is None:
            return
        try:
            async with asyncio.timeout(lab_s(ANSWER_S_MAX)):
                raw = await self._peer.call("accounts")
        except (LinkError, TimeoutError):
            return  # it is going down, or hangs: its end, or work that is not done, tells
        self._accounts, self._uplinked_bytes = parse_ground(raw)

    def ended(self, code: int) -> None:
        """The program has ended."""
        if not self._is_stopping:
            self._on_crash(NAME, self.program.death(code))

    async def _hand_over(self, peer: ControlPeer) -> None:
        while True:
            method, argument, accepted = await self._work.get()
            try:
                answer = await peer.call(method, argument)
            except ControlError as error:
                self._on_crash(NAME, error)
                return
            except LinkError:
                return  # it has gone, which `ended` reports
            if accepted is not None:
                accepted(int(answer))

    def _take_log(self, t_ns: int, kind: str, fields: dict[str, object]) -> None:
        self._log(t_ns, kind, fields)

    def _take_completed(self, job: int, report: list[Any], result: bytes) -> None:
        try:
            made = msgspec.convert(report, JobReport, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise ControlError(f"completed: report: {error}") from None
        self._on_complete(job, made, result)
