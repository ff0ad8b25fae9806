"""One file from one cfdp-py entity to another, class 2, over a lossy link in virtual time; in cfdp-py's environment.

Reads a JSON list of cases from standard input, prints a line of JSON for each. `delivery.py` starts it; nothing of
flatrack is imported here, as that environment has none of its libraries.

Both entities are the library's own handlers with its documented defaults (acknowledgement and NAK timers of 10 s,
limits of 2, immediate NAKs, check limit 2, CRC-32). Its only clock, `spacepackets.countdown.time_ms`, is that of the
simulated link. The user at the sender puts the file once, and again after a reboot of the sender; the user at the
receiver makes a handler for each transaction. A rebooted entity has its files and a sequence number that goes on, and
no handler state, as the library keeps none.

Two things are done for the library that it does not do. In 0.7.0 all handlers of a process share one list of lost
segments (a default value of `_AckedModeParams`), so that a transaction inherits the losses of the one before: here each
has its own. And an exception out of the library, other than those that its documentation has the user ignore, is noted
and costs only the PDU that caused it.
"""

import heapq
import json
import random
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import spacepackets.countdown
from cfdppy import exceptions
from cfdppy.filestore import NativeFilestore
from cfdppy.handler import dest
from cfdppy.handler.dest import DestHandler
from cfdppy.handler.source import SourceHandler
from cfdppy.mib import (
    CheckTimerProvider,
    DefaultFaultHandlerBase,
    IndicationConfig,
    LocalEntityConfig,
    RemoteEntityConfig,
    RemoteEntityConfigTable,
)
from cfdppy.request import PutRequest
from cfdppy.user import CfdpUserBase
from spacepackets.cfdp import ChecksumType, TransmissionMode
from spacepackets.cfdp.pdu.helper import PduFactory
from spacepackets.countdown import Countdown
from spacepackets.seqcount import SeqCountProvider
from spacepackets.util import ByteFieldU16

SENDER, RECEIVER = ByteFieldU16(1), ByteFieldU16(2)
SEGMENT_BYTES = 1024
PDU_BYTES_MAX = 1100
FRAME_OVERHEAD_BYTES = 10
"""COBS with its delimiter and CRC-32C around a PDU of this size [bytes], as on the link of the other side."""
TICK_S = 1.0
"""How often an idle entity's state machine is called [s]."""
REBOOT_S = 30.0
LIBRARY_ERRORS = tuple(
    error for error in vars(exceptions).values() if isinstance(error, type) and issubclass(error, Exception)
)
"""What the state machines raise for PDUs that do not fit their state; their documentation has the user go on."""
_SHARING_PARAMS = dest._AckedModeParams


class Faults(DefaultFaultHandlerBase):
    """Notes that a handler gave up."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def notice_of_suspension_cb(self, transaction_id: Any, cond: Any, progress: int) -> None:
        self._told.append(cond.name)

    notice_of_cancellation_cb = abandoned_cb = notice_of_suspension_cb

    def ignore_cb(self, transaction_id: Any, cond: Any, progress: int) -> None:
        pass


class User(CfdpUserBase):
    """Notes how a transaction ended."""

    def __init__(self) -> None:
        super().__init__(NativeFilestore())
        self.finished: list[str] = []

    def transaction_finished_indication(self, params: Any) -> None:
        self.finished.append(params.finished_params.condition_code.name)

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    transaction_indication = eof_sent_indication = metadata_recv_indication = _nothing
    file_segment_recv_indication = report_indication = suspended_indication = _nothing
    resumed_indication = fault_indication = abandoned_indication = eof_recv_indication = _nothing


class CheckTimers(CheckTimerProvider):
    """The check timer of the library's own tests and examples: 5 s."""

    def provide_check_timer(self, local_entity_id: Any, remote_entity_id: Any, entity_type: Any) -> Countdown:
        return Countdown(timedelta(seconds=5))


class Entity:
    """One end: its handlers by transaction, its transmitter, and what its user was told."""

    def __init__(self, is_sender: bool) -> None:
        self.is_sender = is_sender
        self.faults: list[str] = []
        self.user = User()
        self.free_s = 0.0
        self.off_until_s = 0.0
        self.handlers: dict[int, Any] = {}
        self._numbers = SeqCountProvider(16)

    def reboot(self, until_s: float) -> None:
        self.handlers.clear()
        self.off_until_s = until_s

    def handler(self, number: int) -> Any:
        """The handler of a transaction, made on its first PDU; a sender's is made by `put`."""
        if number not in self.handlers and not self.is_sender:
            self.handlers[number] = self._new_handler()
        return self.handlers.get(number)

    def put(self, source: Path, target: Path) -> None:
        handler = self._new_handler()
        handler.put_request(PutRequest(RECEIVER, source, target, TransmissionMode.ACKNOWLEDGED, True))
        handler.state_machine()
        self.handlers[handler.transaction_seq_num.value] = handler

    def _new_handler(self) -> Any:
        local, remote = (SENDER, RECEIVER) if self.is_sender else (RECEIVER, SENDER)
        config = LocalEntityConfig(local, IndicationConfig(), Faults(self.faults))
        remote_config = RemoteEntityConfig(
            entity_id=remote,
            max_file_segment_len=SEGMENT_BYTES,
            max_packet_len=PDU_BYTES_MAX,
            closure_requested=True,
            crc_on_transmission=False,
            default_transmission_mode=TransmissionMode.ACKNOWLEDGED,
            crc_type=ChecksumType.CRC_32,
        )
        remotes = RemoteEntityConfigTable([remote_config])
        if self.is_sender:
            return SourceHandler(config, self.user, remotes, CheckTimers(), self._numbers)
        return DestHandler(config, self.user, remotes, CheckTimers())


class Run:
    """One case; its fields are those that `delivery.py` gives."""

    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        self.case = case
        self.chance = random.Random(f"cfdp/{case['name']}/{case['seed']}")
        self.now_s = 0.0
        self.data = self.chance.randbytes(case["size_bytes"])
        self.source, self.target = folder / "source", folder / "target"
        self.source.write_bytes(self.data)
        self.target.unlink(missing_ok=True)
        self.sender, self.receiver = Entity(True), Entity(False)
        self.arrivals: list[tuple[float, int, Entity, bytes]] = []
        self.sequence = 0
        self.sent_count = self.lost_count = 0
        self.crash = ""
        at_s, outage_s = case["struck_s"], case["outage_s"]
        self.outage = (at_s, at_s + outage_s) if outage_s else None
        spacepackets.countdown.time_ms = lambda: round(self.now_s * 1000)

    def play(self) -> dict[str, Any]:
        """Run until both sides are done, or the time is up."""
        self._play()
        complete = self.target.exists() and self.target.read_bytes() == self.data
        return {
            "name": self.case["name"],
            "seed": self.case["seed"],
            "finished": complete and self.is_told(),
            "complete": complete,
            "seconds": self.now_s,
            "faults": sorted(set(self.sender.faults + self.receiver.faults)),
            "crash": self.crash,
            "frames": self.sent_count,
            "lost": self.lost_count,
        }

    def _play(self) -> None:
        at_s, rebooted = self.case["struck_s"], self.case["reboot"]
        self.sender.put(self.source, self.target)
        put_again_s = float("inf")
        while self.now_s < self.case["limit_s"]:
            if rebooted and self.now_s >= at_s:
                (self.sender if rebooted == "sender" else self.receiver).reboot(at_s + REBOOT_S)
                put_again_s = at_s + REBOOT_S if rebooted == "sender" else put_again_s
                rebooted = ""
            if self.now_s >= put_again_s:
                put_again_s = float("inf")
                self.sender.put(self.source, self.target)
            self._step()
            if self.is_told() and not rebooted and put_again_s == float("inf"):
                break

    def is_told(self) -> bool:
        """Whether the library has told both users that the file is delivered."""
        return all("NO_ERROR" in entity.user.finished for entity in (self.sender, self.receiver))

    def _step(self) -> None:
        """Let the state machines run that can, then go to the next instant at which something happens."""
        while self.arrivals and self.arrivals[0][0] <= self.now_s:
            _, _, entity, raw = heapq.heappop(self.arrivals)
            packet = PduFactory.from_raw(raw)
            handler = entity.handler(packet.transaction_seq_num.value) if self.now_s >= entity.off_until_s else None
            if handler is not None:
                self._run_handler(entity, handler, packet)
        wake_s = self.now_s + TICK_S
        for entity in (self.sender, self.receiver):
            if self.now_s >= entity.off_until_s and self.now_s >= entity.free_s:
                for handler in list(entity.handlers.values()):
                    self._run_handler(entity, handler, None)
            if entity.free_s > self.now_s:
                wake_s = min(wake_s, entity.free_s)
        if self.arrivals:
            wake_s = min(wake_s, self.arrivals[0][0])
        self.now_s = max(self.now_s + 1e-6, wake_s)

    def _run_handler(self, entity: Entity, handler: Any, packet: Any) -> None:
        self._flush(entity, handler)
        try:
            with suppress(*LIBRARY_ERRORS):
                handler.state_machine(packet)
        except Exception as error:
            self.crash = self.crash or f"{type(error).__name__}: {error}"
        self._flush(entity, handler)

    def _flush(self, entity: Entity, handler: Any) -> None:
        while (holder := handler.get_next_packet()) is not None:
            try:
                raw = bytes(holder.pdu.pack())
            except Exception as error:
                self.crash = self.crash or f"{type(error).__name__}: {error}"
                continue
            self._transmit(entity, raw)

    def _transmit(self, entity: Entity, raw: bytes) -> None:
        case, frame_bytes = self.case, len(raw) + FRAME_OVERHEAD_BYTES
        begin_s = max(self.now_s, entity.free_s)
        entity.free_s = begin_s + frame_bytes * 8 / case["rate_bps"]
        self.sent_count += 1
        survives = (1.0 - case["bit_error_rate"]) ** (8 * frame_bytes) * (1.0 - case["loss"])
        is_struck = self.outage is not None and entity.free_s > self.outage[0] and begin_s < self.outage[1]
        if self.chance.random() >= survives or is_struck:
            self.lost_count += 1
            return
        self.sequence += 1
        other = self.receiver if entity is self.sender else self.sender
        heapq.heappush(self.arrivals, (entity.free_s + case["delay_s"], self.sequence, other, raw))


def main() -> None:
    """Play all cases."""
    dest._AckedModeParams = lambda: _SHARING_PARAMS(lost_seg_tracker=dest.LostSegmentTracker())
    with tempfile.TemporaryDirectory() as folder:
        for case in json.load(sys.stdin):
            print(json.dumps(Run(case, Path(folder)).play()), flush=True)


if __name__ == "__main__":
    main()
