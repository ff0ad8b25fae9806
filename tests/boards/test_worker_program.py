"""The worker's program runs under old interpreters without flight code, and its memory cannot be written from there."""

import ast
import asyncio
import gc
import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boards.worker import check, program
from boards.worker.channel import Channel
from boards.worker.memory import ModelMemory, Place
from flightsw.errors import BoardError

PROGRAM = Path(program.__file__)
PYTHON_OLDEST = (3, 10)
MAY_IMPORT = {"numpy", "onnxruntime"}


def test_the_program_is_in_the_syntax_of_the_oldest_interpreter() -> None:
    ast.parse(PROGRAM.read_text(), feature_version=PYTHON_OLDEST)


def test_the_program_imports_the_standard_library_and_the_runtime_alone() -> None:
    found = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    assert found - set(sys.stdlib_module_names) == MAY_IMPORT


def test_the_proof_model_finds_a_wrong_answer() -> None:
    pytest.importorskip("onnxruntime")
    engine = program.Engine("cpu")
    assert engine.provider == "cpu"

    class Wrong:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.zeros((1, 2, 6, 6), np.float32)]

    engine._session = lambda *_, **__: Wrong()  # type: ignore[method-assign]
    assert engine._disproof("CPUExecutionProvider") == "its answer is wrong"


def test_a_provider_that_gives_wrong_answers_is_not_used_and_the_next_is(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(runtime, "get_available_providers", lambda: offered)
    why = {"TensorrtExecutionProvider": "no such library", "CUDAExecutionProvider": "its answer is wrong"}
    monkeypatch.setattr(program.Engine, "_disproof", lambda _, provider: why.get(provider, ""))
    engine = program.Engine("auto")
    assert engine.provider == "cpu"
    assert engine.refusals == {"tensorrt": "no such library", "cuda": "its answer is wrong"}
    assert program.Engine("cuda").provider == ""


def test_a_struck_network_takes_the_place_of_the_oldest_session() -> None:
    pytest.importorskip("onnxruntime")
    engine = program.Engine("cpu")
    model = bytearray((PROGRAM.parent / program.PROOF).read_bytes())
    weights = model.find(np.float32(-3).tobytes())
    for number in range(program.SESSIONS_MAX + 2):
        model[weights + 2] = number
        request = {"input": "x", "output": "y", "load": 1}
        engine.infer(memoryview(model), request, np.zeros((1, 4, 8, 8), np.float32))
    assert len(engine._sessions) == program.SESSIONS_MAX


def test_a_session_is_kept_for_one_loading_of_its_model() -> None:
    pytest.importorskip("onnxruntime")
    engine = program.Engine("cpu")
    model = memoryview((PROGRAM.parent / program.PROOF).read_bytes())
    made = []
    for load in (1, 1, 2, 2):
        engine.infer(model, {"input": "x", "output": "y", "load": load}, np.zeros((1, 4, 8, 8), np.float32))
        made.append(next(reversed(engine._sessions.values())))
    assert made[0] is made[1] is not made[2] is made[3]


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (np.zeros((1, 2), np.float64), "gives <f8 (1, 2)"),
        (["a", "sequence"], "gives <U8 (2,)"),
        (np.zeros((1, 0), np.float32), "0 bytes, expected 1 to"),
        (np.zeros(17, np.float32), "68 bytes, expected 1 to 64"),
        (np.zeros((1,) * 9, np.float32), "at most 8 dimensions"),
    ],
)
def test_an_output_that_no_frame_may_hold_is_refused_and_the_worker_goes_on(
    output: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "BODY_BYTES_MAX", 64)

    class Network:
        errors = program.COMPUTE_ERRORS

        def infer(self, *_: object) -> object:
            return output

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        asking = program.Manager(ours)
        request = {"number": 1, "do": "infer", "dtype": "<f4", "shape": [0], "offset": 0, "length": 0}
        asking.send(request)
        asking.send({**request, "number": 2})
        ours.shutdown(socket.SHUT_WR)
        memory = ModelMemory()
        memory.place(b"model")
        descriptor = memory.open_for_reading()
        try:
            with pytest.raises(EOFError):
                program.serve(program.Manager(theirs), program.Models(descriptor), Network())  # type: ignore[arg-type]
        finally:
            os.close(descriptor)
            memory.close()
        for number in (1, 2):
            answer, body = asking.receive()
            assert (answer["number"], bytes(body)) == (number, b"")
            assert why in answer["error"]


@pytest.mark.parametrize("head", [b"XXXX" + bytes(8), b"FRWK" + bytes(4) + b"\xff\xff\xff\xff"])
def test_a_head_that_announces_something_else_is_nonsense(head: bytes) -> None:
    with pytest.raises(program.Nonsense):
        program.lengths(head)


# -- memory


def test_nothing_can_be_written_through_the_workers_descriptor() -> None:
    memory = ModelMemory()
    _, view = memory.place(b"model")
    descriptor = memory.open_for_reading()
    try:
        with pytest.raises(OSError):
            os.write(descriptor, b"x")
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, mmap.PAGESIZE)
        with pytest.raises(PermissionError):
            os.ftruncate(memory._descriptor, 0)
        mapped = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)
        view[0] ^= 1
        assert mapped[:5] == b"lodel"
    finally:
        os.close(descriptor)
        memory.close()


def test_the_place_of_a_forgotten_model_is_used_again_and_joined_to_its_neighbours() -> None:
    memory = ModelMemory(bytes_max=3 * mmap.PAGESIZE)
    held = [memory.place(bytes([number])) for number in range(3)]
    assert [place.offset for place, _ in held] == [0, mmap.PAGESIZE, 2 * mmap.PAGESIZE]
    with pytest.raises(BoardError, match="memory for models"):
        memory.place(b"one more")
    del held[1:]
    gc.collect()
    place, view = memory.place(b"x" * (mmap.PAGESIZE + 1))
    assert place == Place(mmap.PAGESIZE, 2 * mmap.PAGESIZE)
    assert bytes(held[0][1]) == b"\x00"
    assert len(view) == mmap.PAGESIZE + 1
    memory.close()


# -- talk


async def test_a_worker_that_does_not_read_is_not_fed_without_bound() -> None:
    class Unread(asyncio.Transport):
        waiting = 0

        def get_write_buffer_size(self) -> int:
            return self.waiting

        def write(self, data: object) -> None:
            self.waiting += len(data)  # type: ignore[arg-type]

    channel = Channel(lambda _: None)
    channel.connection_made(Unread())
    tensor = np.zeros(program.BODY_BYTES_MAX // 4, np.float32)
    channel.request({}, tensor)
    with pytest.raises(BoardError, match="unread"):
        channel.request({}, tensor)
    with pytest.raises(BoardError, match="a tensor of"):
        channel.request({}, np.zeros(program.BODY_BYTES_MAX // 4 + 1, np.float32))


# -- the check


def test_the_check_prints_what_holds_here_as_json() -> None:
    pytest.importorskip("onnxruntime")
    done = subprocess.run([sys.executable, "-m", check.__name__], capture_output=True, cwd=PROGRAM.parents[2])
    report = json.loads(done.stdout)
    assert list(report["ways"]) == ["systemd", "cgroup2", "bubblewrap", "rlimits"]
    assert report["ways"]["rlimits"]["is_proven"]
    assert {line: report["capabilities"][line]["support"] for line in check.REQUIRED} == dict.fromkeys(
        check.REQUIRED, "PROVEN"
    )
    assert done.returncode == 0


def test_the_check_is_a_mistake_or_a_verdict_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--python", "/no/such/python"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    if not Path("/run/systemd/system").exists():
        assert check.main(["--isolation", "systemd"]) == 1
        assert "systemd does not run this system" in capsys.readouterr().err
