"""A satellite on a board with a system of its own, as the bench keeps track of it."""

import asyncio
import random  # noqa: TID251 - what a strike is given

import pytest

from boards import profiles
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import BoardError, ControlError
from flightsw.host.control import connect, serve
from flightsw.ports import ResetCause
from hil.bench.board_node import BoardNode
from hil.bench.strikes import Strikes
from hil.channel.relay import Relay

NAME, NODE = "sat-01", 11
PATIENCE_S = 20.0
ENERGIES = ("initial_j", "harvested_j", "drawn_j", "lost_j", "shunted_j", "unserved_j", "charge_j")
BOOKS = {
    "counts": {"frames_accepted": 5},
    "queues": [],
    "dropped": 0,
    "mode": "NOMINAL",
    "beaconed_ns": 1,
    "energy": dict.fromkeys(ENERGIES, 10.0),
}


class Board:
    """Notes what is done to it. A start waits while `waits` is set, and then fails with `error` if there is one."""

    can_switch = True

    def __init__(self):
        self.done = []
        self.waits = None
        self.error = None

    async def start(self):
        self.done.append("start")
        error = self.error
        if self.waits is not None:
            await self.waits.wait()
        if error is not None:
            raise error

    def cut(self):
        self.done.append("cut")

    async def boot(self):
        self.done.append("boot")

    async def close(self):
        self.done.append("close")

    def last_words(self):
        return ""


class Wire:
    is_exact = False
    url = "serial:///dev/null"

    def __init__(self):
        self.done = []

    def plug(self):
        self.done.append("plug")

    def forget(self):
        self.done.append("forget")

    def deliver(self, interface, frame):
        self.done.append(frame)


class Rig:
    """A board node and what it tells."""

    def __init__(self, has_door=True):
        self.board, self.wire, self.told = Board(), Wire(), []
        loop = asyncio.get_running_loop()
        self.relay = Relay(lambda when_ns, *call: loop.call_soon(*call), lambda: 0)
        self.node = BoardNode(
            config=NodeConfig(node=NODE, name=NAME, interfaces=(InterfaceConfig(index=0, name="radio"),)),
            profile=profiles.load("raspberry-pi-5"),
            board=self.board,
            wire=self.wire,
            relay=self.relay,
            has_door=has_door,
            log=lambda t_ns, kind, fields: self.told.append((kind, fields)),
            note=lambda kind, fields: self.told.append((kind, fields)),
            on_cut=lambda name: self.told.append(("cut", name)),
            on_brown_out=lambda name, computing: self.told.append(("brown_out", computing)),
            on_crash=lambda name, error: self.told.append(("crash", str(error))),
        )


@pytest.fixture
async def door(tmp_path):
    """A bench port; gives what a program does to report there."""
    rigs, peers, ends = [], [], []

    def hello() -> None:
        rigs[-1].node.hello(peers[-1])
        peers[-1].set_handlers(rigs[-1].node.handlers())

    def meet(peer):
        peers.append(peer)
        peer.set_handlers({"hello": hello})

    server = await serve(tmp_path / "door", {}, meet)

    async def report(rig):
        rigs.append(rig)
        program = await connect(tmp_path / "door", {"accounts": lambda: BOOKS})
        ends.append(program)
        await program.call("hello")
        return program

    yield report
    for rig in rigs:
        rig.node.stop()
    for program in ends:
        program.close()
    await server.close()


async def until(holds):
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_board_is_started_once_and_booted_after_each_cut(door):
    rig = Rig()
    rig.node.boot(ResetCause.POWER_ON)
    await until(lambda: rig.wire.done == ["plug"])
    await door(rig)
    rig.node.cut()
    assert not rig.node.is_on
    rig.node.boot(ResetCause.POWER_CYCLE)
    await until(lambda: rig.wire.done == ["plug", "forget", "plug"])
    await rig.node.close()
    assert rig.board.done == ["start", "cut", "boot", "close"]
    assert ("cut", NAME) in rig.told


async def test_a_board_starts_its_program_again_by_itself_and_the_bench_takes_the_next_hello(door):
    rig = Rig()
    rig.node.boot(ResetCause.POWER_ON)
    program = await door(rig)
    assert rig.node.boots_count == 1
    program.notify("reset", "RESET_COMMAND")
    program.close()
    await until(lambda: not rig.node.is_on)
    assert ("board.left", {"announced": True}) in rig.told
    assert ("cut", NAME) in rig.told, "the last of its log may be missing, as after a kill"
    await door(rig)
    assert rig.node.is_on
    assert rig.node.boots_count == 2
    assert "cut" not in rig.board.done
    await rig.node.close()


async def test_a_battery_that_is_empty_does_not_take_the_laboratorys_power(door):
    rig = Rig()
    rig.node.boot(ResetCause.POWER_ON)
    program = await door(rig)
    program.notify("brown_out", 1, False)
    await until(lambda: ("brown_out", False) in rig.told)
    rig.node.cut()  # as the strikes of the bench do then
    assert not rig.node.is_on
    assert "cut" not in rig.board.done
    rig.node.boot(ResetCause.BROWN_OUT)  # it has power, and comes back by itself
    assert rig.board.done == ["start"]
    await rig.node.close()


async def test_a_cut_after_a_commanded_reset_takes_the_laboratorys_power(door):
    rig = Rig()
    rig.node.boot(ResetCause.POWER_ON)
    program = await door(rig)
    program.notify("reset", "RESET_COMMAND")
    program.close()
    await until(lambda: not rig.node.is_on)
    rig.node.cut()
    assert rig.board.done == ["start", "cut"]
    await rig.node.close()


@pytest.mark.parametrize("error", [None, BoardError("QEMU does not run: it was killed")])
async def test_a_board_that_is_cut_while_it_rises_is_no_crash_and_stays_without_power(error):
    rig = Rig()
    rig.board.waits, rig.board.error = asyncio.Event(), error
    rig.node.boot(ResetCause.POWER_ON)
    await until(lambda: rig.board.done == ["start"])
    rig.node.cut()
    rig.board.waits.set()
    await until(lambda: not rig.node._tasks)
    assert rig.board.done == ["start", "cut", "cut"]
    assert rig.wire.done == ["forget"]
    assert not [told for told in rig.told if told[0] == "crash"]
    await rig.node.close()


async def test_a_boot_waits_for_the_end_of_one_that_was_cut_and_gives_settings_that_it_has_not_got():
    rig = Rig()
    rig.board.waits, rig.board.error = asyncio.Event(), BoardError("QEMU does not run: it was killed")
    rig.node.boot(ResetCause.POWER_ON)
    await until(lambda: rig.board.done == ["start"])
    rig.node.cut()
    rig.node.boot(ResetCause.POWER_CYCLE)
    await asyncio.sleep(0)
    assert rig.board.done == ["start", "cut"]
    rig.board.error = None
    rig.board.waits.set()
    await until(lambda: rig.wire.done == ["forget", "plug"])
    assert rig.board.done == ["start", "cut", "start"]
    assert not [told for told in rig.told if told[0] == "crash"]
    await rig.node.close()


async def test_the_end_of_a_machine_is_a_loss_only_when_nobody_asked_for_it():
    rig = Rig(has_door=False)
    rig.board.waits = asyncio.Event()
    rig.node.boot(ResetCause.POWER_ON)
    rig.node.lost("ended")  # while it rises: its start fails, and says more
    rig.board.waits.set()
    await until(rig.node.said_hello.is_set)
    rig.node.cut()
    rig.node.lost("ended")
    assert not [told for told in rig.told if told[0] == "crash"]
    rig.node.boot(ResetCause.POWER_CYCLE)
    await until(rig.node.said_hello.is_set)
    rig.node.lost("ended with code -6")
    assert ("crash", f"{NAME}: ended with code -6; its console ends with:\n(nothing on the console)") in rig.told
    await rig.node.close()


async def test_hello_of_a_board_without_power_is_refused(door):
    rig = Rig()
    with pytest.raises(ControlError, match="the power went off"):
        await door(rig)


async def test_a_board_without_a_door_gets_its_frames_and_tells_no_books():
    rig = Rig(has_door=False)
    rig.node.boot(ResetCause.POWER_ON)
    await until(lambda: rig.node.said_hello.is_set())
    assert rig.node.is_on
    assert rig.node.accounts() is None
    assert rig.node.energy() is None
    assert not rig.node.is_exact
    assert not await rig.node.strike_weights(random.Random(1), 1)
    strikes = Strikes({NAME: rig.node}, {}, lambda _: None, lambda: 0, lambda *_: None)
    assert strikes.reset_node(NAME, "POWER_CYCLE", 5.0)
    assert rig.board.done == ["start", "cut"]
    await rig.node.close()
