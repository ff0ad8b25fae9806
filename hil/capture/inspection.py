"""What a capture says, layer by layer, as plain values: one dict for each frame, segment, bundle or message.

Values are numbers, text, bytes (digests, payloads) and lists of them; `hil.capture.lines` prints them. What cannot be
read is a value too: its verdict says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum, unique
from functools import lru_cache
from typing import Any, Final

import msgspec

from flightsw.errors import BundleError, ConfigError, FrameError, MessageError, SegmentError
from flightsw.wire.bundles import Bundle, CanonicalBlock, decode_bundle
from flightsw.wire.framing import Coding, coding
from flightsw.wire.messages import decode_message
from flightsw.wire.security import (
    BLOCK_CONFIDENTIALITY,
    BLOCK_INTEGRITY,
    NUMBER_PAYLOAD,
    SecurityBlock,
    decode_security,
)
from flightsw.wire.segments import (
    CancelAck,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    Segment,
    decode_segment,
)
from hil.capture.blocks import Blocks, bundles_in
from hil.capture.datagrams import Datagram, ltp_datagram, node_of
from hil.capture.packets import Capture, Packet
from hil.capture.pcapng import LINKTYPE_USER0, OUTBOUND
from hil.capture.recorder import IDENTITY_PREFIX

CLAIMS_TOLD_MAX: Final = 8
"""Claims of a report that are listed: a line stays a line, and reports of ours rarely have more."""

PAYLOAD_TOLD_BYTES: Final = 16
"""Begin of a payload that is shown [bytes]."""

_SERVICES: Final = {1: "COMMAND", 2: "TELEMETRY", 3: "EVENT", 4: "OBJECT", 5: "JOB"}
_BLOCK_NAMES: Final = {BLOCK_INTEGRITY: "BIB", BLOCK_CONFIDENTIALITY: "BCB", 192: "priority"}
_CLIENT_BUNDLE: Final = 1

Finding = dict[str, Any]


@unique
class Layer(StrEnum):
    """What is looked at."""

    FRAMES = "frames"
    SEGMENTS = "segments"
    BUNDLES = "bundles"
    MESSAGES = "messages"


@dataclass(slots=True)
class Tally:
    """What a capture held, known when all findings were read."""

    packets_count: int = 0
    segments_count: int = 0
    raw_count: int = 0
    """Coded frames that were rejected or lost."""
    other_count: int = 0
    """Packets that are no LTP."""
    blocks_count: int = 0
    bundles_count: int = 0
    rejected_count: int = 0
    """Segments, bundles and messages that are none."""


@dataclass(slots=True)
class Inspection:
    """Reads a capture and gives what one layer of it says.

    Args:
        capture: the file.
        layer: what is looked at.
        node: only what this node sent, received, or is an end of; None for all.
    """

    capture: Capture
    layer: Layer
    node: int | None = None
    tally: Tally = field(default_factory=Tally)
    blocks: Blocks = field(default_factory=Blocks)
    _epoch_utc_ns: int | None = None

    def findings(self) -> Iterator[Finding]:
        """All findings in the order of the file.

        Raises:
            ConfigError: as `Capture.packets`.
        """
        for packet in self.capture.packets():
            self.tally.packets_count += 1
            if self._epoch_utc_ns is None:
                self._epoch_utc_ns = _epoch_utc_ns(self.capture.comment, packet)
            for finding in self._look(packet):
                if self.node is None or self.node in finding.pop("nodes"):
                    finding.pop("nodes", None)
                    yield finding

    def _look(self, packet: Packet) -> Iterator[Finding]:
        if packet.interface.link_type == LINKTYPE_USER0:
            self.tally.raw_count += 1
            if self.layer is Layer.FRAMES:
                yield self._raw(packet)
            return
        datagram = ltp_datagram(packet.interface.link_type, packet.data)
        if isinstance(datagram, str):
            self.tally.other_count += 1
            if self.layer is Layer.FRAMES and self.node is None:
                yield self._base(packet) | {"bytes": len(packet.data), "verdict": datagram}
            return
        try:
            segment = decode_segment(datagram.payload)
        except SegmentError as error:
            self.tally.rejected_count += 1
            if self.layer in (Layer.FRAMES, Layer.SEGMENTS):
                verdict = f"no segment: {error}"
                yield self._base(packet, datagram) | {"bytes": len(datagram.payload), "verdict": verdict}
            return
        self.tally.segments_count += 1
        if self.layer is Layer.FRAMES:
            yield self._frame(packet, datagram, segment)
        elif self.layer is Layer.SEGMENTS:
            yield self._base(packet, datagram, segment) | _of_segment(segment) | _comment(packet)
        else:
            yield from self._above(packet, datagram, segment)

    def _base(self, packet: Packet, datagram: Datagram | None = None, segment: Segment | None = None) -> Finding:
        """When, where, from whom to whom."""
        assert self._epoch_utc_ns is not None, "the first packet told"
        base: Finding = {
            "number": packet.number,
            "t_ns": packet.utc_ns - self._epoch_utc_ns,
            "utc_ns": packet.utc_ns,
            "link": packet.interface.name,
            "nodes": set(),
        }
        if datagram is not None:
            source, target = node_of(datagram.source), node_of(datagram.target)
            base["source"] = datagram.source if source is None else str(source)
            base["target"] = datagram.target if target is None else str(target)
            base["nodes"] |= {source, target}
        if segment is not None:
            base["nodes"].add(segment.session[0])
        return base

    def _raw(self, packet: Packet) -> Finding:
        direction = "forward" if packet.direction == OUTBOUND else "backward"
        return self._base(packet) | {
            "direction": direction,
            "bytes": len(packet.data),
            "coding": _coding_name(packet),
            "verdict": packet.comment,
        }

    def _frame(self, packet: Packet, datagram: Datagram, segment: Segment) -> Finding:
        name = _coding_name(packet)
        frame: Finding = {"bytes": len(datagram.payload)}
        if code := _known_coding(name):
            try:
                frame = {"bytes": len(code.frame(datagram.payload)), "coding": name}
            except FrameError as error:
                frame["verdict"] = f"no frame of {name}: {error}"
        frame.setdefault("verdict", packet.comment or "clean")
        return self._base(packet, datagram, segment) | frame

    def _above(self, packet: Packet, datagram: Datagram, segment: Segment) -> Iterator[Finding]:
        block = self.blocks.add(segment, datagram.source, datagram.target)
        if block is None:
            return
        self.tally.blocks_count += 1
        base = self._base(packet, datagram, segment) | {"session": _session(segment)}
        if isinstance(segment, DataSegment) and segment.client_service != _CLIENT_BUNDLE:
            self.tally.rejected_count += 1
            yield base | {"bytes": len(block), "verdict": f"block of client service {segment.client_service}"}
            return
        for data in bundles_in(block):
            copy = base | {"nodes": set(base["nodes"]), "bytes": len(data)}
            try:
                bundle = decode_bundle(data)
            except BundleError as error:
                self.tally.rejected_count += 1
                yield copy | {"verdict": f"no bundle: {error}"}
                continue
            self.tally.bundles_count += 1
            copy["nodes"] |= {bundle.source.node, bundle.destination.node}
            if self.layer is Layer.BUNDLES:
                yield copy | _of_bundle(bundle, self.capture.comment.startswith(IDENTITY_PREFIX))
            elif (message := self._of_message(bundle)) is not None:
                yield copy | message

    def _of_message(self, bundle: Bundle) -> Finding | None:
        message: Finding = {
            "from": str(bundle.source),
            "to": str(bundle.destination),
            "service": _SERVICES.get(bundle.destination.service, str(bundle.destination.service)),
        }
        if _is_encrypted(bundle):
            return message | {"verdict": f"encrypted payload of {len(bundle.payload)} bytes"}
        try:
            content = decode_message(bundle.payload)
        except MessageError as error:
            self.tally.rejected_count += 1
            return message | {"verdict": f"no message: {error}"}
        fields = {name: getattr(content, name) for name in content.__struct_fields__}
        return message | {
            "message": type(content).__name__,
            "fields": msgspec.to_builtins(fields, builtin_types=(bytes,)),
        }


def _epoch_utc_ns(comment: str, first: Packet) -> int:
    """The instant 0: of a run of ours its epoch, of other captures the first packet."""
    if comment.startswith(IDENTITY_PREFIX):
        try:
            identity = msgspec.json.decode(comment.removeprefix(IDENTITY_PREFIX), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return first.utc_ns  # a comment is free text: one that looks like ours and is none says nothing
        epoch = identity.get("epoch_utc_ns")
        if type(epoch) is int:
            return epoch
    return first.utc_ns


def _coding_name(packet: Packet) -> str:
    """What the recorder wrote into the description of the interface."""
    return packet.interface.description.rpartition("coding ")[2]


@lru_cache(maxsize=64)  # a capture of ours has one or two; a hostile one pays for its own
def _known_coding(name: str) -> Coding | None:
    try:
        return coding(name)
    except ConfigError:
        return None  # a capture of others has no coded frames


def _comment(packet: Packet) -> Finding:
    return {"verdict": packet.comment} if packet.comment else {}


def _session(segment: Segment) -> str:
    return f"{segment.session[0]}/{segment.session[1]}"


def _of_segment(segment: Segment) -> Finding:
    finding: Finding = {"session": _session(segment)}
    match segment:
        case DataSegment():
            marks = [name for name in ("checkpoint", "end_of_red", "end_of_block") if getattr(segment, name)]
            finding |= {
                "type": "red data" if segment.red else "green data",
                "marks": marks,
                "client_service": segment.client_service,
                "offset": segment.offset,
                "length": len(segment.data),
            }
            if segment.checkpoint:
                finding["checkpoint_serial"] = segment.checkpoint_serial
                finding["report_serial"] = segment.report_serial
        case ReportSegment():
            claims = [[segment.lower + offset, length] for offset, length in segment.claims[:CLAIMS_TOLD_MAX]]
            finding |= {
                "type": "report",
                "report_serial": segment.report_serial,
                "checkpoint_serial": segment.checkpoint_serial,
                "lower": segment.lower,
                "upper": segment.upper,
                "claims_count": len(segment.claims),
                "claims": claims,
            }
        case ReportAck():
            finding |= {"type": "report ack", "report_serial": segment.report_serial}
        case CancelSegment():
            by = "sender" if segment.by_sender else "receiver"
            finding |= {"type": f"cancel by {by}", "reason": segment.reason.name}
        case CancelAck():
            finding |= {"type": f"ack of cancel by {'sender' if segment.by_sender else 'receiver'}"}
    return finding


def _of_bundle(bundle: Bundle, is_ours: bool) -> Finding:
    finding: Finding = {
        "from": str(bundle.source),
        "to": str(bundle.destination),
        "created_ms": bundle.creation[0],
        "sequence": bundle.creation[1],
        "lifetime_ms": bundle.lifetime_ms,
    }
    if bundle.age_ms is not None:
        finding["age_ms"] = bundle.age_ms
    if bundle.hop_count is not None:
        finding["hops"] = f"{bundle.hop_count[1]} of {bundle.hop_count[0]}"
    if bundle.previous_node is not None:
        finding["previous"] = str(bundle.previous_node)
    if bundle.flags:
        finding["flags"] = f"{int(bundle.flags):#x}"
    if bundle.blocks:
        finding["blocks"] = [_of_block(block, is_ours) for block in bundle.blocks]
    finding["payload_bytes"] = len(bundle.payload)
    finding["payload"] = bundle.payload[:PAYLOAD_TOLD_BYTES]
    return finding


def _of_block(block: CanonicalBlock, is_ours: bool) -> str:
    """An extension block; of a security block also its key, which in ours is the service number of its source."""
    name = _BLOCK_NAMES.get(block.type, f"type {block.type}")
    security = _security(block)
    if security is None:
        return f"{name} {block.data.hex() if len(block.data) <= PAYLOAD_TOLD_BYTES else f'{len(block.data)} bytes'}"
    targets = ", ".join(map(str, security.targets))
    parameters = ", ".join(
        f"{number}={value.hex() if isinstance(value, bytes) else value}" for number, value in security.parameters
    )
    key = f", key {security.source.service}" if is_ours else ""
    return (
        f"{name} of {targets} by {security.source}{key}, context {security.context}, parameters {parameters or 'none'}"
    )


def _security(block: CanonicalBlock) -> SecurityBlock | None:
    if block.type not in (BLOCK_INTEGRITY, BLOCK_CONFIDENTIALITY):
        return None
    try:
        return decode_security(block.data)
    except BundleError:
        return None  # the block is shown as bytes, like any that we cannot read


def _is_encrypted(bundle: Bundle) -> bool:
    return any(
        block.type == BLOCK_CONFIDENTIALITY
        and (security := _security(block)) is not None
        and NUMBER_PAYLOAD in security.targets
        for block in bundle.blocks
    )
