"""A small LTP node, written from RFC 5326 without any module of flatrack; bundles by pyD3TN, in its own environment.

It stands for another implementation in tests: it draws serial and session numbers at random as the standard asks, sets
discretionary checkpoints, puts several bundles into one block, divides blocks into a red and a green part, fragments
bundles, and answers its echo service.

    python ltp_peer.py NODE LISTEN_PORT PEER_PORT

One JSON object a line: on standard input what to send, on standard output what arrived and what became of it.
"""

import json
import random  # noqa: TID251 - not our code under test, and the standard asks for it
import select
import socket
import sys
import time  # noqa: TID251 - a process of its own, in real time
from itertools import pairwise

from pyd3tn.bundle7 import Bundle, CRCType, create_bundle7
from pyd3tn.sdnv import sdnv_decode, sdnv_encode

ECHO = 7
RETRY_S = 0.3
SEGMENT = 90
CLIENT_BUNDLES = 1

# Segment types of RFC 5326 3.1.2.
RED, RED_CP, RED_CP_EORP, RED_CP_EORP_EOB, GREEN, GREEN_EOB = 0, 1, 2, 3, 4, 7
REPORT, REPORT_ACK, CS, CAS, CR, CAR = 8, 9, 12, 13, 14, 15


def numbers(data, count):
    found = []
    for _ in range(count):
        value, length = sdnv_decode(data)
        found.append(value)
        data = data[length:]
    return found, data


class Receiving:
    def __init__(self):
        self.pieces = {}
        self.green = {}
        self.red_size = None
        self.size = None
        self.reports = {}
        self.primary_upper = 0
        self.next_serial = random.randint(1, 2**14)
        self.is_delivered = False


class Sending:
    def __init__(self, number, block, red_size):
        self.number = number
        self.block = block
        self.red_size = red_size
        self.claimed = [False] * red_size
        self.serial = random.randint(1, 2**14)
        self.waiting = {}
        self.seen_reports = []


class Engine:
    def __init__(self, node, listen_port, peer_port):
        self.node = node
        self.peer = ("127.0.0.1", peer_port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", listen_port))
        self.receiving = {}
        self.sending = {}
        self.sequence = 0

    # -- bundles

    def make(self, order):
        self.sequence += 1
        flags = order.get("flags", 0)
        return create_bundle7(
            order["source"],
            order["destination"],
            bytes.fromhex(order["payload"]),
            report_to_eid=order.get("report_to"),
            crc_type_primary=CRCType.CRC32,
            crc_type_canonical=CRCType.CRC16,
            creation_timestamp=0,
            sequence_number=self.sequence,
            lifetime=60,
            flags=flags,
            hop_limit=30,
            bundle_age=0,
        )

    def fragments(self, order):
        """Two overlapping fragments of a bundle, the later first (RFC 9171 5.8)."""
        payload = bytes.fromhex(order["payload"])
        middle = len(payload) // 2
        self.sequence += 1
        for lower, upper in ((middle - 5, len(payload)), (0, middle + 5)):
            yield create_bundle7(
                order["source"],
                order["destination"],
                payload[lower:upper],
                creation_timestamp=0,
                sequence_number=self.sequence,
                lifetime=60,
                flags=1,
                fragment_offset=lower,
                total_adu_length=len(payload),
                bundle_age=0,
            )

    def order(self, order):
        if order.get("fragmented"):
            for bundle in self.fragments(order):
                self.send(bytes(bundle), len(bytes(bundle)))
            return
        red = b"".join(bytes(self.make(order)) for _ in range(order.get("times", 1)))
        if "green" in order:
            green = bytes(self.make(order | {"payload": order["green"]}))
            self.send(red + green, len(red))
        else:
            self.send(red, len(red))

    def deliver(self, block, color):
        bundle = Bundle.parse(block)
        primary = bundle.primary_block
        source, destination = str(primary.source), str(primary.destination)
        fields = {}
        if primary.bundle_proc_flags & 2:  # an administrative record, RFC 9171 4.2.3
            statuses, reason, of, *_ = Bundle.parse_administrative_record(bundle.payload_block.data)["record_data"]
            fields = {"statuses": statuses, "reason": reason, "of": str(of)}
        else:
            fields = {"arrived": bundle.payload_block.data.hex()}
        say(source=source, destination=destination, color=color, **fields)
        if destination == f"ipn:{self.node}.{ECHO}":
            self.order({"source": destination, "destination": source, "payload": bundle.payload_block.data.hex()})

    # -- segments

    def emit(self, kind, originator, number, content=b""):
        head = bytes((kind,)) + sdnv_encode(originator) + sdnv_encode(number) + b"\0"
        self.socket.sendto(head + content, self.peer)

    def send(self, block, red_size):
        number = random.randint(1, 2**32 - 1)
        session = self.sending[number] = Sending(number, block, red_size)
        edges = sorted({*range(0, red_size, SEGMENT), red_size, *range(red_size, len(block), SEGMENT), len(block)})
        for index, (lower, upper) in enumerate(pairwise(edges)):
            if lower >= red_size:
                self.data(session, GREEN_EOB if upper == len(block) else GREEN, lower, upper)
            elif upper == red_size or index % 3 == 2:
                self.checkpoint(session, lower, upper, 0)
            else:
                self.data(session, RED, lower, upper)

    def data(self, session, kind, lower, upper, serials=b""):
        content = sdnv_encode(CLIENT_BUNDLES) + sdnv_encode(lower) + sdnv_encode(upper - lower) + serials
        self.emit(kind, self.node, session.number, content + session.block[lower:upper])

    def checkpoint(self, session, lower, upper, report, serial=None):
        if serial is None:
            serial, session.serial = session.serial, session.serial + 1
        session.waiting[serial] = (time.monotonic() + RETRY_S, lower, upper, report)
        kind = RED_CP
        if upper == session.red_size:
            kind = RED_CP_EORP_EOB if upper == len(session.block) else RED_CP_EORP
        self.data(session, kind, lower, upper, sdnv_encode(serial) + sdnv_encode(report))

    def tick(self):
        now = time.monotonic()
        for session in list(self.sending.values()):
            for serial, (due, lower, upper, report) in list(session.waiting.items()):
                if due <= now:
                    self.checkpoint(session, lower, upper, report, serial)
        for (originator, number), session in list(self.receiving.items()):
            for serial, (due, content) in list(session.reports.items()):
                if due <= now:
                    session.reports[serial] = (now + RETRY_S, content)
                    self.emit(REPORT, originator, number, content)

    def receive(self, datagram):
        kind = datagram[0]
        assert kind < 16, "version 0"
        (originator, number), rest = numbers(datagram[1:], 2)
        assert rest[0] == 0, "no extensions were asked for"
        rest = rest[1:]
        if kind <= GREEN_EOB:
            self.receive_data(kind, originator, number, rest)
        elif kind == REPORT:
            self.receive_report(number, rest)
        elif kind == REPORT_ACK:
            (serial,), _ = numbers(rest, 1)
            session = self.receiving.get((originator, number))
            if session is not None:
                session.reports.pop(serial, None)
        elif kind == CS:
            self.emit(CAS, originator, number)
        elif kind == CR:
            self.emit(CAR, originator, number)
            say(cancelled=rest[0])
            self.sending.pop(number, None)

    def receive_data(self, kind, originator, number, rest):
        (service, offset, length), rest = numbers(rest, 3)
        assert service == CLIENT_BUNDLES
        serial = report = 0
        if kind in (RED_CP, RED_CP_EORP, RED_CP_EORP_EOB):
            (serial, report), rest = numbers(rest, 2)
            assert serial != 0, "a checkpoint serial number must not be zero"
        assert len(rest) == length
        session = self.receiving.setdefault((originator, number), Receiving())
        if kind in (GREEN, GREEN_EOB):
            assert kind == GREEN_EOB, "one segment is enough for green data here"
            assert offset == 0
            self.deliver(rest, "green")
            return
        session.pieces[offset] = rest
        if kind in (RED_CP_EORP, RED_CP_EORP_EOB):
            session.red_size = offset + length
        if serial:
            lower = 0 if report else session.primary_upper
            upper = offset + length
            session.primary_upper = max(session.primary_upper, upper)
            self.report(session, originator, number, serial, 0 if lower >= upper else lower, upper)
        if not session.is_delivered and self.runs(session) == [(0, session.red_size)]:
            session.is_delivered = True
            self.deliver(b"".join(data for _, data in sorted(self.flat(session).items())), "red")

    def flat(self, session):
        return {offset + i: bytes((byte,)) for offset, data in session.pieces.items() for i, byte in enumerate(data)}

    def runs(self, session):
        found = []
        for at in sorted(self.flat(session)):
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], at + 1)
            else:
                found.append((at, at + 1))
        return found

    def report(self, session, originator, number, checkpoint, lower, upper):
        claims = [
            (max(lower, start), min(upper, end)) for start, end in self.runs(session) if end > lower and start < upper
        ]
        serial, session.next_serial = session.next_serial, session.next_serial + 1
        content = b"".join(map(sdnv_encode, (serial, checkpoint, upper, lower, len(claims))))
        content += b"".join(sdnv_encode(start - lower) + sdnv_encode(end - start) for start, end in claims)
        session.reports[serial] = (time.monotonic() + RETRY_S, content)
        self.emit(REPORT, originator, number, content)

    def receive_report(self, number, rest):
        (serial, checkpoint, upper, lower, count), rest = numbers(rest, 5)
        claims, rest = numbers(rest, 2 * count)
        assert rest == b""
        self.emit(REPORT_ACK, self.node, number, sdnv_encode(serial))
        session = self.sending.get(number)
        if session is None or (serial, checkpoint) in session.seen_reports:
            return
        assert serial != 0, "a report serial number must not be zero"
        session.seen_reports.append((serial, checkpoint))
        session.waiting.pop(checkpoint, None)
        end = -1
        for offset, length in zip(claims[::2], claims[1::2], strict=True):
            assert length >= 1, "3.2.2: never less than 1"
            assert offset > end, "3.2.2: greater than the end of the prior claim"
            end = offset + length
            assert lower + end <= upper, "3.2.2: never beyond the upper bound"
            session.claimed[lower + offset : lower + end] = [True] * length
        missing = [at for at in range(lower, upper) if not session.claimed[at]]
        if all(session.claimed):
            del self.sending[number]
            say(acknowledged=number)
            return
        pieces = []
        for at in missing:
            if pieces and pieces[-1][1] == at and at - pieces[-1][0] < SEGMENT:
                pieces[-1][1] = at + 1
            else:
                pieces.append([at, at + 1])
        for piece_lower, piece_upper in pieces[:-1]:
            self.data(session, RED, piece_lower, piece_upper)
        for piece_lower, piece_upper in pieces[-1:]:
            self.checkpoint(session, piece_lower, piece_upper, serial)


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    node, listen_port, peer_port = map(int, sys.argv[1:])
    random.seed(node)
    engine = Engine(node, listen_port, peer_port)
    say(ready=engine.socket.getsockname()[1])
    while True:
        readable, _, _ = select.select([engine.socket, sys.stdin], [], [], 0.05)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            engine.order(json.loads(line))
        if engine.socket in readable:
            engine.receive(engine.socket.recv(65_535))
        engine.tick()


if __name__ == "__main__":
    main()
