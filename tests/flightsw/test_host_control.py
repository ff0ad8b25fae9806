"""Control sockets: calls both ways over a real Unix socket, and what happens to callers and peers who are wrong."""

import asyncio
import socket
import stat
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from flightsw.errors import ConfigError, ControlError, LinkBroken, LinkClosed, StorageError
from flightsw.host import control
from flightsw.host.control import ControlPeer, connect, connect_url, parse_address, serve, serve_url, token_holds

PATIENCE_S = 20.0
"""Longest wait for what comes at once."""


class Pair:
    """A server with one peer connected to it."""

    def __init__(self, path, near_handlers=None, far_handlers=None):
        self.path = path
        self.near_handlers, self.far_handlers = near_handlers or {}, far_handlers or {}

    async def __aenter__(self):
        arrived = asyncio.get_running_loop().create_future()
        self.server = await serve(self.path, self.far_handlers, arrived.set_result)
        self.near = await connect(self.path, self.near_handlers)
        self.far = await asyncio.wait_for(arrived, PATIENCE_S)
        return self

    async def __aexit__(self, *_):
        self.near.close()
        await asyncio.wait_for(self.near.closed, PATIENCE_S)
        await asyncio.wait_for(self.server.close(), PATIENCE_S)


def at(tmp_path):
    return tmp_path / "control"


@asynccontextmanager
async def raw(path):
    """A connection of somebody who writes what he likes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionResetError, BrokenPipeError):
            await writer.wait_closed()


async def answer(reader):
    length = int.from_bytes(await asyncio.wait_for(reader.readexactly(4), PATIENCE_S), "big")
    return msgspec.msgpack.decode(await reader.readexactly(length))


def framed(message):
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


async def test_both_ends_call_and_are_answered(tmp_path):
    def double(number: int) -> int:
        return 2 * number

    async def later(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    async with Pair(at(tmp_path), {"later": later}, {"double": double}) as pair:
        assert await pair.near.call("double", 21) == 42
        assert await pair.far.call("later", "word") == "WORD"


async def test_values_of_all_kinds_arrive_as_they_were(tmp_path):
    values = [None, True, -(2**63), 2**64 - 1, 1.5, "ä", b"\x00\xff", [1, [2]], {"a": {"b": b"c"}}]
    async with Pair(at(tmp_path), {}, {"echo": lambda value: value}) as pair:
        assert [await pair.near.call("echo", value) for value in values] == values


async def test_notifications_are_taken_in_order_and_not_answered(tmp_path):
    taken: list[int] = []
    done = asyncio.Event()

    def take(number: int) -> None:
        taken.append(number)
        if number == 999:
            done.set()

    async with Pair(at(tmp_path), {}, {"take": take}) as pair:
        for number in range(1000):
            pair.near.notify("take", number)
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    assert taken == list(range(1000))


async def test_a_slow_answer_holds_up_nobody(tmp_path):
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    async with Pair(at(tmp_path), {}, {"slow": slow, "quick": lambda: "quick"}) as pair:
        waiting = asyncio.create_task(pair.near.call("slow"))
        assert await pair.near.call("quick") == "quick"
        assert not waiting.done()
        gate.set()
        assert await waiting == "slow"


async def test_an_error_of_ours_travels_as_its_text(tmp_path):
    def full() -> None:
        raise StorageError("disk full")

    async def later() -> None:
        raise ConfigError("node is 'x'")

    async with Pair(at(tmp_path), {}, {"full": full, "later": later}) as pair:
        with pytest.raises(ControlError, match=r"^disk full$"):
            await pair.near.call("full")
        with pytest.raises(ControlError, match=r"^node is 'x'$"):
            await pair.near.call("later")


def typed(node: int, share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5, *rest: str) -> str:
    return f"{node} {share} {rest}"


WRONG = [
    ((), r"typed: 0 arguments, expected \(node, share, \*rest\)"),
    (("3",), "typed: node is '3': Expected `int`, got `str`"),
    ((True,), "typed: node is True: Expected `int`, got `bool`"),
    ((3, 1.5), "typed: share is 1.5: Expected `float` <= 1.0"),
    ((3, 0.5, 7), "typed: rest is 7: Expected `str`, got `int`"),
    ((b"x" * 500,), r"typed: node is b'x{20,60}\.\.\.: Expected `int`, got `bytes`"),
]


@pytest.mark.parametrize(("params", "why"), WRONG, ids=range(len(WRONG)))
async def test_a_wrong_argument_is_the_callers_error_and_names_it(tmp_path, params, why):
    async with Pair(at(tmp_path), {}, {"typed": typed}) as pair:
        with pytest.raises(ControlError, match=why):
            await pair.near.call("typed", *params)
        assert await pair.near.call("typed", 3, 1, "a", "b") == "3 1.0 ('a', 'b')"


async def test_too_many_arguments_and_unknown_methods_are_refused(tmp_path):
    async with Pair(at(tmp_path), {}, {"one": lambda value: value}) as pair:
        with pytest.raises(ControlError, match=r"one: 2 arguments, expected \(value\)"):
            await pair.near.call("one", 1, 2)
        with pytest.raises(ControlError, match="two: no such method, expected one of one"):
            await pair.near.call("two")
        pair.near.notify("two")  # nobody is told, and nothing breaks
        assert await pair.near.call("one", 1) == 1


async def test_calls_that_wait_end_with_the_connection(tmp_path):
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    async with Pair(at(tmp_path), {}, {"wait": wait}) as pair:
        waiting = asyncio.create_task(pair.near.call("wait"))
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        pair.far.close()
        with pytest.raises(LinkBroken, match="the peer closed the connection"):
            await asyncio.wait_for(waiting, PATIENCE_S)
        await asyncio.wait_for(pair.near.closed, PATIENCE_S)
        with pytest.raises(LinkBroken):
            pair.near.notify("wait")
        with pytest.raises(LinkBroken):
            await pair.near.call("wait")


async def test_the_work_for_a_peer_that_went_away_is_stopped(tmp_path):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Pair(at(tmp_path), {}, {"wait": wait}) as pair:
        pair.near.notify("wait")
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        pair.near.close()
        await asyncio.wait_for(cancelled.wait(), PATIENCE_S)


async def test_who_closed_himself_is_told_so(tmp_path):
    async with Pair(at(tmp_path)) as pair:
        pair.near.close()
        with pytest.raises(LinkClosed):
            pair.near.notify("anything")


async def test_what_was_said_before_closing_arrives(tmp_path):
    lengths: list[int] = []
    async with Pair(at(tmp_path), {}, {"take": lambda data: lengths.append(len(data))}) as pair:
        for _ in range(20):
            pair.near.notify("take", bytes(1_000_000))
        pair.near.close()
        await asyncio.wait_for(pair.far.closed, PATIENCE_S)
    assert lengths == [1_000_000] * 20


HOSTILE = {
    "no MessagePack": (4).to_bytes(4, "big") + b"\xc1\xc1\xc1\xc1",
    "no list": framed({"a": 1}),
    "an empty list": framed([]),
    "an unknown kind": framed([9, 1, "x", []]),
    "a call without arguments": framed([0, 1, "x"]),
    "a method that is no text": framed([0, 1, 7, []]),
    "arguments that are no list": framed([2, "x", "y"]),
    "a number that is none": framed([0, "1", "x", []]),
    "nested too deep": (100_005).to_bytes(4, "big") + b"\x91" * 100_005,
    "a message too long": (2**32 - 1).to_bytes(4, "big"),
    "just over the limit": (control.MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_peer_that_breaks_the_rules_is_cut_off_and_others_are_served(tmp_path, data):
    async with Pair(at(tmp_path), {}, {"ping": lambda: "pong"}) as pair, raw(pair.path) as (reader, writer):
        writer.write(data)
        with suppress(ConnectionResetError):  # the other way to be cut off
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert await pair.near.call("ping") == "pong"


async def test_messages_may_come_in_any_pieces(tmp_path):
    async with Pair(at(tmp_path), {}, {"echo": lambda value: value}) as pair, raw(pair.path) as (reader, writer):
        for byte in framed([0, 7, "echo", ["piecewise"]]):
            writer.write(bytes([byte]))
            await writer.drain()
        assert await answer(reader) == [1, 7, None, "piecewise"]
        writer.write(framed([0, 1, "echo", [1]]) + framed([0, 2, "echo", [2]]))
        assert [await answer(reader), await answer(reader)] == [[1, 1, None, 1], [1, 2, None, 2]]


async def test_an_answer_that_nobody_asked_for_is_ignored(tmp_path):
    async with Pair(at(tmp_path), {}, {"ping": lambda: "pong"}) as pair, raw(pair.path) as (reader, writer):
        writer.write(framed([1, 99, None, "surprise"]) + framed([0, 1, "ping", []]))
        assert await answer(reader) == [1, 1, None, "pong"]


async def test_a_peer_that_does_not_read_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "UNREAD_BYTES_MAX", 1_000_000)

    def tell_much(peer):
        for _ in range(100):
            peer.notify("news", bytes(100_000))

    async with Pair(at(tmp_path), {}, {"ping": lambda: "pong"}) as pair, raw(pair.path) as (reader, writer):
        writer.write(framed([0, 1, "ping", []]))
        await answer(reader)
        (deaf,) = [peer for peer in pair.server.peers if peer is not pair.far]
        with pytest.raises(LinkBroken, match="leaves 1000000 bytes unread"):
            tell_much(deaf)
        await asyncio.wait_for(deaf.closed, PATIENCE_S)
        assert not pair.far.closed.done()


async def test_a_message_that_is_too_long_is_the_callers_error(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MESSAGE_BYTES_MAX", 1000)
    async with Pair(at(tmp_path), {}, {"double": lambda data: data * 2}) as pair:
        with pytest.raises(ControlError, match=r"a message of 2\d\d\d bytes, at most 1000"):
            await pair.near.call("double", bytes(2000))
        with pytest.raises(ControlError, match=r"the answer is a message of 1\d\d\d bytes, at most 1000"):
            await pair.near.call("double", bytes(600))
        assert await pair.near.call("double", b"ab") == b"abab"


async def test_more_calls_at_once_than_anybody_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "CALLS_MAX", 3)
    gate = asyncio.Event()

    async def slow() -> None:
        await gate.wait()

    async with Pair(at(tmp_path), {}, {"slow": slow}) as pair:
        waiting = [asyncio.create_task(pair.near.call("slow")) for _ in range(4)]
        with pytest.raises(ControlError, match="3 calls are under way"):
            await asyncio.wait_for(waiting[3], PATIENCE_S)
        gate.set()
        await asyncio.gather(*waiting[:3])


@pytest.mark.parametrize("kind", ["function", "coroutine"])
async def test_a_mistake_of_ours_goes_up_to_the_loop(tmp_path, kind):
    taken: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: taken.append(context.get("exception")))

    def stumble() -> None:
        raise KeyError("planted")

    async def stumble_later() -> None:
        raise KeyError("planted")

    handler = stumble if kind == "function" else stumble_later
    async with Pair(at(tmp_path), {}, {"stumble": handler, "ping": lambda: "pong"}) as pair:
        pair.near.notify("stumble")
        if kind == "function":
            await asyncio.wait_for(pair.far.closed, PATIENCE_S)
        else:
            assert await pair.near.call("ping") == "pong"
            await asyncio.sleep(0)
    assert [repr(error) for error in taken] == ["KeyError('planted')"]


async def test_only_this_user_may_connect_and_the_socket_goes_with_its_program(tmp_path):
    async with Pair(at(tmp_path)) as pair:
        assert stat.S_IMODE(pair.path.stat().st_mode) == 0o600
    assert not at(tmp_path).exists()


async def test_a_socket_that_a_dead_program_left_is_replaced(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(at(tmp_path)))
    left.close()
    async with Pair(at(tmp_path), {}, {"ping": lambda: "pong"}) as pair:
        assert await pair.near.call("ping") == "pong"


async def test_a_path_that_cannot_be_a_socket_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"file: there is another file, expected no file or a socket"):
        await serve(tmp_path / "file", {})
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"the path has \d+ bytes, at most 107"):
        await serve(tmp_path / ("x" * 108), {})
    with pytest.raises(ConfigError, match=r"the path has \d+ bytes, at most 107"):
        await connect(tmp_path / ("x" * 108), {})
    with pytest.raises(ConfigError, match=r"No such file or directory"):
        await serve(tmp_path / "absent" / "socket", {})
    with pytest.raises(ConfigError, match=r"is the program running\?"):
        await connect(tmp_path / "absent", {})


async def test_two_programs_cannot_have_one_socket(tmp_path):
    async with Pair(at(tmp_path), {}, {"ping": lambda: "pong"}) as pair:
        with pytest.raises(ConfigError, match="another program listens there"):
            await serve(at(tmp_path), {})
        assert await pair.near.call("ping") == "pong"


async def test_no_socket_stays_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with Pair(at(tmp_path)) as pair:
        assert isinstance(pair.near, ControlPeer)
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- over TCP


async def test_both_ends_call_and_are_answered_over_tcp():
    arrived = asyncio.get_running_loop().create_future()

    def double(number: int) -> int:
        return 2 * number

    server = await serve_url("tcp://127.0.0.1:0", {"double": double}, arrived.set_result)
    near = await connect_url(f"tcp://127.0.0.1:{server.port}", {"double": double})
    far = await asyncio.wait_for(arrived, PATIENCE_S)
    assert await near.call("double", 21) == 42
    assert await far.call("double", 4) == 8
    near.close()
    await asyncio.wait_for(far.closed, PATIENCE_S)
    await asyncio.wait_for(server.close(), PATIENCE_S)


async def test_nobody_at_a_tcp_address_and_an_address_in_use_are_told():
    server = await serve_url("tcp://127.0.0.1:0", {})
    url = f"tcp://127.0.0.1:{server.port}"
    with pytest.raises(ConfigError, match=f"control socket {url}: "):
        await serve_url(url, {})
    await server.close()
    with pytest.raises(ConfigError, match=f"control socket {url}: .*is the program running"):
        await connect_url(url, {})


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4000", "tcp://", "tcp://host", "tcp://host:port", "tcp://h:1/x", "udp://h:1"]
)
def test_what_is_no_tcp_address_is_refused(url):
    with pytest.raises(ConfigError, match="expected tcp://host:port"):
        parse_address(url)


def test_a_token_opens_only_where_one_is_expected():
    assert token_holds("secret", "secret")
    assert not token_holds("secret", "secreT")
    assert not token_holds("secret", "")
    assert not token_holds("", "")
