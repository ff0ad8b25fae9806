"""The ground of a trial speaks with a node that runs as a process, through the frames and signatures of flight."""

import asyncio
import os
import socket
import tty
from types import SimpleNamespace

import pytest

from flightsw.host.keyfile import OWNER_ONLY
from flightsw.link.record_stream import stuff_record
from flightsw.net.agent_values import Delivery
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_EVENT,
    SERVICE_JOB,
    CommandCode,
    Event,
    JobReport,
    JobState,
    Severity,
    Stage,
    Verification,
    encode_message,
)
from hil.bench.processes import Program
from hil.channel.uart import SocketWire, socket_line
from hil.emulation.flip_outcomes import Outcome, judged
from hil.emulation.struck_node import BAUD, DATA, RINGS, UART, NodeSubject
from hil.emulation.target import MODEL
from hil.emulation.trial_ground import BOOT, GROUND, NODE, TrialGround

PATIENCE_S = 60.0
MARGIN_S = 0.5
"""A process needs less patience than an emulated board."""


class Board:
    """A node on a pseudo-terminal, with the settings of the struck one; it has no sensors of its own."""

    def __init__(self, folder):
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        machine = SimpleNamespace(name="board", uart_path=folder)
        self.subject = NodeSubject(machine)
        for name, data in self.subject.settings().items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(OWNER_ONLY)
        text = (folder / "node.toml").read_text()
        for ours, here in ((UART, os.ttyname(self._slave)), (DATA, str(folder)), ('"auto"', '"simulated"')):
            assert ours in text
            text = text.replace(ours, here)
        (folder / "node.toml").write_text(text)
        self.program = Program("board", ("-m", "boards", "--config", "node.toml"), folder, lambda code: None)

    def wire(self):
        return SocketWire("board", self._line, device=UART, baud=BAUD)

    def _line(self):
        line = os.dup(self._master)
        return line, lambda: os.close(line)

    def close(self):
        self.program.abandon()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
async def board(tmp_path, monkeypatch):
    for module in ("struck_node", "trial_ground"):
        monkeypatch.setattr(f"hil.emulation.{module}.MARGIN_S", MARGIN_S)
    made = Board(tmp_path)
    made.program.start()
    yield made
    made.close()


def delivered(message, service):
    return Delivery(service, NODE, encode_message(message), 0, 1000, True, False, 0)


async def test_commands_that_were_never_answered_are_sent_again_after_a_reset(tmp_path):
    ground = TrialGround(
        SocketWire("none", lambda: socket_line(tmp_path / "none"), device=UART, baud=BAUD), RINGS[1], 1
    )
    answered, _ = ground._command("NODE.NOOP"), ground._command("NODE.NOOP")
    ground._on_delivery(delivered(Verification(NODE, answered, Stage.COMPLETED, CommandCode.OK), SERVICE_COMMAND))
    counters = ground._endpoint.agent.counters
    for boot, sent_count in ((BOOT, 2), (2, 3), (2, 3), (3, 4)):
        reset = Event(NODE, boot, 1, 0, Severity.WARNING_HI, "NODE", "RESET", "", (boot, "KILLED"))
        ground._on_delivery(delivered(reset, SERVICE_EVENT))
        assert counters.bundles_sourced_count == sent_count
    await ground.close()


async def test_a_ground_is_silent_from_the_end_of_its_node_until_the_node_is_heard(tmp_path):
    board, ground_end = socket.socketpair()
    board.setblocking(False)
    ground_end.setblocking(False)
    wire = SocketWire("uart", lambda: (ground_end.fileno(), lambda: None), device=UART, baud=BAUD)
    ground = TrialGround(wire, RINGS[GROUND], 1)
    ground.fall_silent()
    board.recv(1 << 16)  # delimiters
    ground._command("NODE.NOOP")
    with pytest.raises(BlockingIOError):
        board.recv(1)
    board.send(stuff_record(0, b"a frame"))
    async with asyncio.timeout(PATIENCE_S):
        while ground._is_mute:
            await asyncio.sleep(0)
        ground._command("NODE.NOOP")
        assert len(await asyncio.get_running_loop().sock_recv(board, 1 << 16)) > 1
    await ground.close()
    board.close()
    ground_end.close()


async def test_a_report_without_a_result_is_the_end_of_its_job(tmp_path):
    line = SocketWire("none", lambda: socket_line(tmp_path / "none"), device=UART, baud=BAUD)
    ground = TrialGround(line, RINGS[1], 1)
    running = asyncio.create_task(ground.run(2, b"model", b"tile"))
    await asyncio.sleep(0)
    spec = ground.heard.spec
    report = JobReport(
        NODE, 2, 1, JobState.COMPLETED, "", spec.model, spec.data, b"", 0, b"", 0, 0.0, 8, 0, 0, 1.0, "flatrack"
    )
    ground._on_delivery(delivered(report, SERVICE_JOB))
    asked = Verification(NODE, ground._commands_count + 1, Stage.COMPLETED, CommandCode.OK)
    ground._on_delivery(delivered(asked, SERVICE_COMMAND))
    async with asyncio.timeout(PATIENCE_S):
        await running
    assert judged(ground.heard, b"", "", boot=BOOT, has_ended=True).outcome is Outcome.DETECTED
    await ground.close()


async def test_grounds_that_know_nothing_of_each_other_are_obeyed_in_turn(board):
    model, tile, results = MODEL.read_bytes(), board.subject._tile, []
    async with asyncio.timeout(PATIENCE_S):
        for starts_count in (1, 2):
            ground = TrialGround(board.wire(), RINGS[GROUND], starts_count)
            if starts_count == 1:
                await ground.upload(model)
            await ground.run(starts_count, model, tile)
            results.append(ground.heard)
            await ground.close()
    first, second = results
    assert judged(second, first.result, "", boot=BOOT, has_ended=True).outcome in (Outcome.MASKED, Outcome.CORRECTED)
    assert second.warnings() == []
    assert second.report.job_id == 2
    assert first.result != b""


async def test_a_node_that_was_reset_gets_the_job_again(board):
    model, tile = MODEL.read_bytes(), board.subject._tile
    async with asyncio.timeout(PATIENCE_S):
        ground = TrialGround(board.wire(), RINGS[GROUND], 1)
        await ground.upload(model)
        running = asyncio.create_task(ground.run(1, model, tile))
        while not ground.heard.answers:
            await asyncio.wait([running], timeout=0.01)  # between looks at what came
        board.program.kill()
        await board.program.stop()
        board.program.start()
        await running
        heard = ground.heard
        await ground.close()
    assert heard.boot == 2
    assert len(heard.causes(BOOT)) == 1
    assert heard.result == ground._store.get(heard.report.result)
    assert len(heard.answers) >= 3, "the job, the job again, and the question after it"
