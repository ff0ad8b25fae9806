"""Asks nodes for their audit trails, and verifies what comes (`ground.audit`)."""

from collections.abc import Callable
from typing import Any, Final

from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError, MessageError
from flightsw.ports import Disk
from flightsw.storage.audit_chain import HASH_BYTES, split_records
from ground.archive import Archive
from ground.audit import AuditBook, Head, Verdict, verify

DUMP_OPCODE: Final = "AUDIT.DUMP"
DUMP_KIND: Final = "AUDIT"
PACKET: Final = "AUDIT.HK"
PACKETS_LOOKED_AT_MAX: Final = 4096
"""Messages of telemetry that are searched for hashes of the chain: hours of housekeeping."""
ASKED_MAX: Final = 64
"""Dumps waited for; of more, the oldest are forgotten: somebody asked and went away."""


class _Asked:
    """A dump that was asked for, and what was known before."""

    def __init__(self, node: int, anchor: Head | None, known: dict[int, bytes], held: set[tuple[int, int]]) -> None:
        self.node = node
        self.anchor = anchor
        self.known = known
        self.held = held
        """(boot count, number) of the dumps that were here already."""


class Audits:
    """Audits of one ground segment.

    Args:
        disk: keeps how far each node's chain is verified.
        archive: where dumps and telemetry arrive.
    """

    def __init__(self, disk: Disk, archive: Archive) -> None:
        self._book = AuditBook(disk)
        self._archive = archive
        self._asked: dict[int, _Asked] = {}

    def begin(self, node: int, command: Callable[..., int]) -> int:
        """Ask a node for its trail from the last verified record on; returns the command's number.

        Args:
            node: its number.
            command: `GroundSegment.command`.
        """
        anchor = self._book.anchor(node)
        first = 0 if anchor is None else anchor.number
        known = {number: digest for number, digest in self._told(node).items() if number >= first}
        held = {(row.boot_count, row.number) for row in self._archive.dumps(node, DUMP_KIND)}
        number = command(node, DUMP_OPCODE, first)
        while len(self._asked) >= ASKED_MAX:
            del self._asked[min(self._asked)]
        self._asked[number] = _Asked(node, anchor, known, held)
        return number

    def verdict(self, number: int) -> Verdict | None:
        """What became of the dump that a command asked for; None while it has not come. What held is noted, once.

        Raises:
            ConfigError: no audit has this number, or what came is no trail.
            StorageError: it cannot be noted.
        """
        asked = self._asked.get(number)
        if asked is None:
            raise ConfigError(f"audit: number is {number}, expected that of an audit under way")
        rows = self._archive.dumps(asked.node, DUMP_KIND)
        row = next((one for one in rows if one.is_whole and (one.boot_count, one.number) not in asked.held), None)
        data = None if row is None else self._archive.dump(asked.node, row.boot_count, row.number)
        if data is None:
            return None
        del self._asked[number]
        try:
            records = split_records(data)
        except MessageError as error:
            raise ConfigError(f"audit: {error}") from None
        found = verify(records, asked.known, asked.anchor)
        if found.head is not None and found.head != asked.anchor:
            self._book.keep(asked.node, found.head)
        return found

    def _told(self, node: int) -> dict[int, bytes]:
        """Number -> hash of the records that housekeeping told of."""
        spec = flight_dictionary().packets[PACKET]
        names = [key.partition(".")[2] for key in spec.channels]
        told: dict[int, bytes] = {}
        for row in self._archive.packets(node, PACKETS_LOOKED_AT_MAX):
            for packet in row.message.packets:
                if packet.name != PACKET or len(packet.values) != len(names):
                    continue
                values: dict[str, Any] = dict(zip(names, packet.values, strict=True))
                head = _hash(values["head"])
                if values["records"] > 0 and head is not None:
                    told[values["records"] - 1] = head
        return told


def _hash(text: object) -> bytes | None:
    try:
        found = bytes.fromhex(str(text))
    except ValueError:
        return None
    return found if len(found) == HASH_BYTES else None
