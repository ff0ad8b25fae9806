"""Parts of machines that answer: both sides of object transfers, and a control socket."""

import asyncio
from typing import Any, Final

import msgspec

from flightsw.errors import ConfigError, MessageError
from flightsw.host.control import ControlPeer
from flightsw.objects.exchange import TransferConfig
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import ObjectMessage, Transfers
from flightsw.ports import Random
from flightsw.wire.messages import Chunk, ObjectQuery, ObjectStatus, ObjectWant, decode_message, encode_message
from hil.fuzz.cbor_samples import plain
from hil.fuzz.decoders import Decoder
from hil.fuzz.machines import FAR, GROUND, MODEL, NODE, SECOND_NS, STRANGER, TILE, node_message
from hil.fuzz.sessions import session, steps_of
from hil.fuzz.stored import disk_with
from hil.sim.loop import VirtualLoop

QUOTA_BYTES: Final = 1 << 17
METHODS: Final = ("add", "greet", "later", "refuse", "none", "")


# -- transfers


def _transfers_sample(random: Random) -> bytes:
    return session([(random.randrange(4), node_message(random)) for _ in range(random.choice((4, 16, 48)))])


def _transfers(data: bytes) -> None:
    """The store never holds what its name does not say, stays within its quota, and keeps what is being sent."""
    store = ObjectStore(disk_with({}), quota_bytes=QUOTA_BYTES)
    transfers = Transfers(store, TransferConfig(waiting_max=4), local=NODE)
    known = [store.put(MODEL), store.put(TILE)]
    now_ns = 0
    transfers.push(known[0], GROUND, now_ns)
    transfers.fetch(bytes(32), 100_000, (GROUND, FAR), now_ns)
    for kind, content in steps_of(data):
        now_ns += 7 * SECOND_NS
        message = _decoded(content)
        if message is not None:
            transfers.receive(message, (GROUND, FAR, STRANGER, 2**64 - 1)[kind % 4], now_ns)
        for outgoing in transfers.poll(now_ns):
            encode_message(outgoing.message)
        transfers.take_events()
    assert store.used_bytes <= QUOTA_BYTES
    assert store.scrub_next() is None
    assert store.has(known[0])


def _decoded(content: bytes) -> ObjectMessage | None:
    try:
        message = decode_message(content)
    except MessageError:
        return None
    return message if isinstance(message, Chunk | ObjectQuery | ObjectStatus | ObjectWant) else None


# -- control


class _Transport(asyncio.Transport):
    """Takes what is written and remembers how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self.is_over

    def close(self) -> None:
        """End."""
        self.is_over = True

    def abort(self) -> None:
        """End at once."""
        self.is_over = True


def _control_sample(random: Random) -> bytes:
    """Messages of the control protocol, right and wrong, each behind its length."""
    parts = []
    for _ in range(random.choice((1, 2, 5))):
        params: object = [plain(random, 1) for _ in range(random.randrange(4))]
        kind = random.choice((0, 0, 0, 1, 2, 3, plain(random, 0)))
        numbered = [kind, random.choice((1, 2, plain(random, 0))), random.choice(METHODS), params]
        message = numbered if random.random() < 0.8 else numbered[:1] + numbered[2:]
        try:
            body = msgspec.msgpack.encode(message)
        except (OverflowError, TypeError):  # integers past 64 bits are none of MessagePack
            body = b"\xc1"
        length = len(body) if random.random() < 0.95 else random.choice((0, 1 << 31, len(body) + 1))
        parts.append(length.to_bytes(4, "big") + body)
    return b"".join(parts)


def _control(data: bytes) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_talk(data))


async def _talk(data: bytes) -> None:
    """Each call is answered by a result or an error text; whoever breaks the protocol is hung up on, no more."""

    def refuse() -> None:
        raise ConfigError("no")

    async def later(seconds: int) -> str:
        await asyncio.sleep(min(max(seconds, 0), 9))
        return "now"

    def add(one: int, other: int = 0) -> int:
        return (one + other) % 1000

    def greet(name: str, *more: bytes) -> list[Any]:
        return [name, *more]

    peer = ControlPeer({"add": add, "greet": greet, "later": later, "refuse": refuse})
    transport = _Transport()
    peer.connection_made(transport)
    step = 1 + len(data) // 3
    for at in range(0, len(data), step):
        if not transport.is_over:
            peer.data_received(data[at : at + step])
    await asyncio.sleep(10)
    peer.connection_lost(None)
    written, at = bytes(transport.written), 0
    while at < len(written):
        length = int.from_bytes(written[at : at + 4], "big")
        answer = msgspec.msgpack.decode(written[at + 4 : at + 4 + length])
        assert answer[0] == 1, "a peer that is only asked only answers"
        assert answer[2] is None or isinstance(answer[2], str)
        at += 4 + length


def conversations() -> list[Decoder]:
    """What answers, as decoders of sessions that may raise nothing."""
    return [
        Decoder("transfers", (), _transfers_sample, _transfers, 40.0),
        Decoder("control", (), _control_sample, _control, 30.0),
    ]
