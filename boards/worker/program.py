"""The program of a worker: runs models over tensors, and knows nothing of flight.

Standard library, numpy and onnxruntime alone, in the syntax of Python 3.10, and started by its path, so that it runs
under an interpreter of its own: builds of the runtime for a GPU may exist for one version of Python only.

| descriptor | is |
|---|---|
| 0 | a stream socket to the manager, both ways |
| 1 | the memory that holds the models, open for reading alone |
| 2 | words for people |

Both ends send frames: magic, length of the header and of the body (4 bytes each, little endian), a header in JSON, and
a body: one tensor, row by row. The worker greets with one byte, by which the manager learns its process number, and
then with what it found out about itself: what computes, and how it is confined. Then each request has one answer.

| request | asks for |
|---|---|
| `infer` | the output of the network in the shared memory for an input |
| `multiply` | rows of the matrix in the shared memory times another matrix |

A network is loaded anew when its bytes are not those of a session that is kept, or when the manager has loaded the
model again since: what was struck is what runs, from the next request on, and a load mends the runtime's copy too. Rows
of a matrix are read from the memory while they are multiplied.
"""

import collections
import ctypes
import errno
import hashlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

MAGIC = b"FRWK"
HEAD = struct.Struct("<4sII")
HEADER_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 128 * 1024 * 1024
"""One tensor [bytes]: eight times the input of the largest tile."""
DTYPES = ("<f4", "<i4")
"""What an answer may consist of."""
SIDES_MAX = 8
"""Dimensions that an answer may have."""
GREETING = b"F"
SESSIONS_MAX = 4
"""Networks that are kept ready: a board runs one or two, and a struck one is another."""
ERROR_CHARACTERS_MAX = 1000
NICE = 10
"""Below the manager, whose cycle goes before any job on a board with few cores."""
HOG_EXIT = 42
"""How a hog ends that was refused memory."""
HOG_PIECE_BYTES = 4 * 1024 * 1024

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""What can compute, the fastest first."""
PROOF = "proof.onnx"
"""A convolution with small whole numbers: its true answer is exact in every format that a provider may use."""

IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
"""What a runtime that is missing, or built for something else, raises when it is imported."""
COMPUTE_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, OSError, MemoryError)

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, CLONE_NEWNET, CLONE_NEWUSER = 1, 38, 0x4000_0000, 0x1000_0000
"""Sources: linux/prctl.h, linux/sched.h."""


class Nonsense(Exception):
    """The other end does not keep to the frames; says how."""


def pack(header: dict[str, Any], body_bytes: int) -> bytes:
    """Return the head of a frame, which its body follows."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return HEAD.pack(MAGIC, len(text), body_bytes) + text


def lengths(head: bytes) -> tuple[int, int]:
    """Return (bytes of the header, bytes of the body) that a head announces. Raises: Nonsense."""
    magic, header_bytes, body_bytes = HEAD.unpack(head)
    if magic != MAGIC:
        raise Nonsense(f"a frame begins with {magic!r}, expected {MAGIC!r}")
    if header_bytes > HEADER_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
        raise Nonsense(f"a frame of {header_bytes} + {body_bytes} bytes")
    return header_bytes, body_bytes


class Manager:
    """The other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """Wait for the next frame. Raises: EOFError, Nonsense."""
        header_bytes, body_bytes = lengths(bytes(self._take(HEAD.size)))
        header = json.loads(bytes(self._take(header_bytes)))
        return header, self._take(body_bytes)

    def send(self, header: dict[str, Any], body: Any = b"") -> None:
        """Send a frame."""
        view = memoryview(body).cast("B")
        self._socket.sendall(pack(header, len(view)))
        self._socket.sendall(view)

    def exit_with(self) -> None:
        """End this process when the manager has gone, whatever is computed here."""
        poll = select.poll()
        poll.register(self._socket, select.POLLHUP | select.POLLRDHUP)
        poll.poll()
        os._exit(0)

    def _take(self, size_bytes: int) -> bytearray:
        data = bytearray(size_bytes)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return data


class Models:
    """The shared memory, mapped as far as it was asked for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: Any = None

    def bytes_of(self, offset: int, length: int) -> memoryview:
        """Return the bytes there, as they are whenever they are looked at."""
        if self._map is None or len(self._map) < offset + length:
            self._map = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size, access=mmap.ACCESS_READ)
        return memoryview(self._map)[offset : offset + length]


class Engine:
    """Runs networks with one provider.

    Args:
        wanted: `auto` or a name in `PROVIDERS`.
    """

    def __init__(self, wanted: str) -> None:
        import onnxruntime

        self._runtime = onnxruntime
        state = onnxruntime.capi.onnxruntime_pybind11_state
        own = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)
        self.errors: tuple[type[Exception], ...] = (*own, state.RuntimeException, *COMPUTE_ERRORS)
        """What a model or a tensor that does not fit makes it raise; anything else ends the worker."""
        self._sessions = collections.OrderedDict()  # type: collections.OrderedDict[tuple[int, bytes], Any]
        self.version = str(onnxruntime.__version__)
        self.provider = ""
        self.refusals: dict[str, str] = {}
        """Provider -> why it is not used."""
        offered = onnxruntime.get_available_providers()
        for name, provider in PROVIDERS.items():
            if self.provider or wanted not in ("auto", name):
                continue
            why = self._disproof(provider) if provider in offered else "the runtime is built without it"
            if why:
                self.refusals[name] = why
            else:
                self.provider = name

    def _disproof(self, provider: str) -> str:
        """Compute something with this provider alone; return what is wrong with it, or nothing."""
        import numpy as np

        try:
            session = self._session(Path(__file__).with_name(PROOF).read_bytes(), [provider], alone=True)
            batch = (np.arange(1 * 4 * 8 * 8, dtype=np.int64) * 7 % 11 - 5).reshape(1, 4, 8, 8)
            weights = (np.arange(2 * 4 * 3 * 3, dtype=np.int64) * 5 % 7 - 3).reshape(2, 4, 3, 3)
            windows = np.lib.stride_tricks.sliding_window_view(batch[0], (3, 3), (1, 2))
            expected = np.maximum(np.einsum("cyxij,ocij->oyx", windows, weights), 0)
            found = session.run(["y"], {"x": batch.astype(np.float32)})[0][0]
        except self.errors as error:
            return said(error)
        return "" if np.array_equal(found, expected) else "its answer is wrong"

    def _session(self, model: bytes, providers: list[str], alone: bool = False) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = self._runtime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        if alone and providers != [PROVIDERS["cpu"]]:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return self._runtime.InferenceSession(model, options, providers=providers)

    def infer(self, model: memoryview, request: dict[str, Any], batch: Any) -> Any:
        """Return what the network in these bytes makes of a batch.

        A session has its own copy of the weights, which nothing guards: it is kept for one loading of the model.
        """
        data = bytes(model)
        key = (request["load"], hashlib.blake2b(data, digest_size=32).digest())
        session = self._sessions.pop(key, None)
        if session is None:
            names = list(PROVIDERS)
            session = self._session(data, [PROVIDERS[name] for name in names[names.index(self.provider) :]])
        self._sessions[key] = session
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session.run([request["output"]], {request["input"]: batch})[0]


def multiply(matrix: memoryview, request: dict[str, Any], right: Any) -> Any:
    """Return rows of a matrix times another one; int8 is summed in 32 bits."""
    import numpy as np

    left = np.frombuffer(matrix, request["left_dtype"]).reshape(request["left_shape"])
    if left.dtype == np.int8:
        left, right = left.astype(np.int32), right.astype(np.int32)
    with np.errstate(all="ignore"):  # what was struck may hold anything
        return left @ right


def check_answer(answer: Any) -> None:
    """See that frames can hold an answer, whatever a network gives. Raises: TypeError."""
    found = f"gives {answer.dtype.str} {answer.shape}"
    if answer.dtype.str not in DTYPES or answer.ndim > SIDES_MAX:
        raise TypeError(f"{found}, expected {' or '.join(DTYPES)} in at most {SIDES_MAX} dimensions")
    if not 0 < answer.nbytes <= BODY_BYTES_MAX:
        raise TypeError(f"{found}, {answer.nbytes} bytes, expected 1 to {BODY_BYTES_MAX}")


def serve(manager: Manager, models: Models, engine: Engine) -> None:
    """Answer requests until the manager goes. Raises: EOFError, Nonsense."""
    import numpy as np

    while True:
        request, body = manager.receive()
        try:
            tensor = np.frombuffer(body, request["dtype"]).reshape(request["shape"])
            model = models.bytes_of(request["offset"], request["length"])
            if request["do"] == "infer":
                answer = engine.infer(model, request, tensor)
            else:
                answer = multiply(model, request, tensor)
            answer = np.ascontiguousarray(answer)
            check_answer(answer)
        except engine.errors as error:
            text = said(error)
            is_memory = isinstance(error, MemoryError) or "alloc" in text.lower()
            manager.send({"number": request["number"], "error": text, "is_memory": is_memory})
            continue
        manager.send({"number": request["number"], "dtype": answer.dtype.str, "shape": answer.shape}, answer)


def confine(setup: dict[str, Any]) -> str:
    """Give up what the setup says, for good; return what could not be given up."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    trouble = ""
    if setup.get("own_network"):
        flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
        if libc.unshare(flags):
            trouble = f"no network of its own: {os.strerror(ctypes.get_errno())}"
    if setup.get("no_new_privileges"):
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in setup.get("rlimits", {}).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    os.nice(NICE)
    os.chdir("/")
    return trouble


def confinement() -> dict[str, Any]:
    """Return how this process finds itself confined, by trying where that does no harm."""
    status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else ""
    return {
        "interfaces": _interfaces(),
        "writing": _writing(),
        "no_new_privileges": "\nNoNewPrivs:\t1" in status,
        "environment": sorted(name for name in os.environ if name not in OWN_VARIABLES),
        "uid": os.getuid(),
    }


OWN_VARIABLES = ("OPENBLAS_NUM_THREADS", "LC_CTYPE", "PWD", "SHLVL", "_")
"""Set by this program itself, by its interpreter, or by a shell on the way."""


def _interfaces() -> list[str]:
    """Return the interfaces of networks, beside the loopback."""
    try:
        return [name for _, name in socket.if_nameindex() if name != "lo"]
    except OSError as error:
        return [f"unknown ({errno.errorcode.get(error.errno or 0, 'error')})"]


def _writing() -> str:
    """Return why nothing can be written to the root file system and where this program lies, or nothing."""
    why = ""
    for folder in ("/", str(Path(__file__).parent)):
        try:
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, "error")
            continue
        try:
            os.write(descriptor, b"x")
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, "error")
        else:
            return ""
        finally:
            os.close(descriptor)
    return why


def hog(size_bytes: int) -> int:
    """Take memory, so that a limit shows; returns 0 when there was none."""
    pieces = []
    try:
        for _ in range(0, size_bytes, HOG_PIECE_BYTES):
            pieces.append(bytearray(b"\xa5") * HOG_PIECE_BYTES)
    except MemoryError:
        pieces.clear()
        return HOG_EXIT
    return 0


def said(error: BaseException) -> str:
    """Return an error in one bounded line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:ERROR_CHARACTERS_MAX]


def main() -> int:
    """Run; returns the exit code."""
    setup = json.loads(sys.argv[1])
    sys.path.extend(setup.get("paths", []))
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    trouble = confine(setup)
    if "hog_bytes" in setup:
        return hog(setup["hog_bytes"])
    memory = os.dup(1)
    os.dup2(2, 1)
    manager_socket = socket.socket(fileno=os.dup(0))
    manager_socket.sendall(GREETING)
    manager = Manager(manager_socket)
    threading.Thread(target=manager.exit_with, daemon=True).start()
    hello = {"python": sys.version.split()[0], "confinement": confinement(), "trouble": trouble}
    try:
        engine = Engine(setup["provider"])
    except IMPORT_ERRORS as error:
        manager.send({**hello, "error": said(error)})
        return 1
    manager.send({**hello, "runtime": engine.version, "provider": engine.provider, "refusals": engine.refusals})
    try:
        serve(manager, Models(memory), engine)
    except EOFError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
