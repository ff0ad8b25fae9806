"""What nodes tell of themselves, on its way into the archive: packets, dumps, and what their recorders kept.

A segment of a recorder is acknowledged once all of it is durably on record here, and not before: the node erases it
then. One that comes again, because its acknowledgement was lost, changes nothing and is acknowledged again.
"""

from flightsw.errors import MessageError
from flightsw.storage.records import HEADER, record_at
from flightsw.wire.messages import Dump, Event, Packets, Playback, PlaybackAck, decode_message
from ground.archive import Archive

EVENTS_DUMP = "EVENTS"
"""Kind of dump that holds kept events, which go to the others."""


class Intake:
    """Puts telemetry of nodes on record.

    Args:
        archive: where it goes.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.refused_count = 0
        """Records of recorders and of dumps that were none, or not the node's own."""
        self.played_count = 0
        """Records of recorders that were taken, also those that were here already."""

    def packets(self, message: Packets, payload: bytes, now_ns: int) -> None:
        """Take packets that were sent as they were sampled."""
        self._archive.add_packets(message, payload, now_ns)

    def playback(self, message: Playback, now_ns: int) -> PlaybackAck:
        """Take a segment of a recorder; returns what the node may be told now.

        What is no record of the node's own is counted and left out: to ask for it again would not mend it.
        """
        for record in message.records:
            self._record(record, message.node, now_ns)
        self._archive.flush(is_durable=True)
        return PlaybackAck(message.boot_count, message.number)

    def dump(self, part: Dump, now_ns: int) -> bool:
        """Take one part of a data product; says whether it is whole now."""
        is_whole = self._archive.add_dump(part, now_ns)
        if is_whole and part.kind == EVENTS_DUMP:
            data = self._archive.dump(part.node, part.boot_count, part.number)
            assert data is not None, "it is whole"
            offset = 0
            while (record := record_at(data, offset)) is not None:
                self._record(record, part.node, now_ns)
                offset += HEADER.size + len(record)
        return is_whole

    def _record(self, record: bytes, node: int, now_ns: int) -> None:
        try:
            found = decode_message(record)
        except MessageError:
            self.refused_count += 1
            return
        if isinstance(found, Packets) and found.node == node:
            self._archive.add_packets(found, record, now_ns, recorded=True)
            self.played_count += 1
        elif isinstance(found, Event) and found.node == node:
            self._archive.add_event(found, now_ns)
            self.played_count += 1
        else:
            self.refused_count += 1
