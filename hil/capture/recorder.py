"""Records what crossed the links of a relay as a pcapng capture.

Each link has up to two interfaces in the capture, described when their first frame comes:

| interface | link type | holds |
|---|---|---|
| `LINK` | IPv4 | the LTP segment of each frame that the receiver takes, in a UDP datagram (`hil.capture.datagrams`) |
| `LINK/raw` | USER0 | the coded bytes of each frame that it rejects, where asked also of lost ones; comments say why |

A frame that arrives with flips that the coding corrects is in the first, with a comment. Outbound is the link's forward
direction. Times are mission time: the scenario's epoch plus the time of the run, virtual or real.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from flightsw.errors import WireError
from flightsw.ports import Frame
from flightsw.wire.frames import padding_of
from flightsw.wire.framing import Coding, coding
from flightsw.wire.framing import received as payload_of
from hil.capture.datagrams import Addresses
from hil.capture.pcapng import INBOUND, LINKTYPE_IPV4, LINKTYPE_USER0, OUTBOUND, PcapngWriter
from hil.channel.relay import Endpoint, Fate, Way

FLIPS_TOLD_MAX: Final = 16
"""Flipped bits that a comment lists: more do not help a reader, and a comment is a line."""

RAW_SUFFIX: Final = "/raw"
"""Ends the name of the interface of a link's coded bytes."""

IDENTITY_PREFIX: Final = "flatrack "
"""Begins the comment of the section; the identity of the run follows as JSON."""


class Recorder:
    """Writes a capture; an observer of a relay.

    Args:
        path: the file; an old one is replaced.
        identity: what the run is: scenario, seed, version. Goes into the section's comment.
        epoch_utc_ns: mission time at the instant 0 of the run [ns since 1970-01-01T00:00:00Z].
        coding_for: name of the coding that an endpoint sends.
        has_lost: also write frames that did not arrive.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        epoch_utc_ns: int,
        coding_for: Callable[[Endpoint], str],
        *,
        has_lost: bool = False,
    ) -> None:
        fields = {**identity, "epoch_utc_ns": epoch_utc_ns}
        comment = IDENTITY_PREFIX + msgspec.json.encode(fields, order="deterministic").decode()
        self._writer = PcapngWriter(path, f"flatrack {identity.get('flatrack', '')}".rstrip(), comment)
        self._epoch_utc_ns = epoch_utc_ns
        self._coding_for = coding_for
        self._has_lost = has_lost
        self._interfaces: dict[tuple[str, int], int] = {}
        self._addresses: dict[tuple[int, int], Addresses] = {}
        self._codings: dict[Endpoint, Coding] = {}
        self.delivered_count = 0
        """Frames that arrived, and are in the file."""
        self.lost_count = 0
        """Frames that did not arrive and are in the file."""

    def observe(self, now_ns: int, way: Way, sent: Frame, received: Frame, fate: Fate) -> None:
        """Take a frame at the end of its way; see `hil.channel.relay.Observer`."""
        direction = OUTBOUND if way.is_forward else INBOUND
        utc_ns = self._epoch_utc_ns + now_ns
        if fate is not Fate.DELIVERED:
            if self._has_lost:
                raw = self._interface(way, LINKTYPE_USER0)
                self._writer.write(raw, utc_ns, bytes(sent), direction, f"lost: {fate.value}{_padding(sent)}")
                self.lost_count += 1
            return
        self.delivered_count += 1
        segment, verdict = self._segment(way.source, sent, received)
        if segment is None:
            raw = self._interface(way, LINKTYPE_USER0)
            self._writer.write(raw, utc_ns, bytes(received), direction, verdict)
            return
        ends = (way.source[0], way.target[0])
        addresses = self._addresses.get(ends)
        if addresses is None:
            addresses = self._addresses[ends] = Addresses(*ends)
        interface = self._interface(way, LINKTYPE_IPV4)
        self._writer.write(interface, utc_ns, addresses.datagram(segment), direction, verdict)

    def close(self) -> None:
        """Complete the file.

        Raises:
            ConfigError: not everything could be written.
        """
        self._writer.close()

    def _interface(self, way: Way, link_type: int) -> int:
        number = self._interfaces.get((way.link, link_type))
        if number is None:
            coding = self._coding_for(way.source)
            if link_type == LINKTYPE_IPV4:
                name, description = way.link, f"LTP segments; coding {coding}"
            else:
                name, description = way.link + RAW_SUFFIX, f"coded frames, rejected or lost; coding {coding}"
            number = self._interfaces[way.link, link_type] = self._writer.add_interface(link_type, name, description)
        return number

    def _segment(self, source: Endpoint, sent: Frame, received: Frame) -> tuple[bytes | None, str]:
        """The segment in a frame that arrived, None when its receiver rejects it, and what there is to say of it."""
        flips = "" if received is sent else _flips(bytes(sent), bytes(received))
        code = self._codings.get(source)
        if code is None:
            code = self._codings[source] = coding(self._coding_for(source))
        try:
            segment, _ = payload_of(code, received)
        except WireError as error:
            return None, f"rejected: {flips or 'as it was sent'}; {error}{_padding(sent)}"
        return segment, f"corrected: {flips}{_padding(sent)}" if flips else _padding(sent).removeprefix("; ")


def _padding(frame: Frame) -> str:
    padding_bytes = padding_of(frame)
    return f"; {padding_bytes} bytes of padding" if padding_bytes else ""


def _flips(sent: bytes, received: bytes) -> str:
    """Which bits are not as they were sent; bit 0 of a byte is sent first."""
    difference = int.from_bytes(sent, "big") ^ int.from_bytes(received, "big")
    count, bits_count = difference.bit_count(), 8 * len(sent)
    places: list[str] = []
    while difference and len(places) < FLIPS_TOLD_MAX:
        bit = bits_count - difference.bit_length()
        places.append(f"{bit // 8}.{bit % 8}")
        difference ^= 1 << (bits_count - 1 - bit)
    more = ", ..." if count > len(places) else ""
    return f"{count} bit{'s' if count > 1 else ''} flipped at byte.bit {', '.join(places)}{more}"
