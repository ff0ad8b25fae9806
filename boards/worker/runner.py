"""Runs the steps of jobs in a worker process, in real time.

What a step means stays in flight code (`flightsw.compute.kinds`): it asks for operations on tensors, and these are
computed in the worker, on models in memory that both share. The manager never waits but in `await`.

A worker that dies costs the step under way, which ends with the reason as `BoardError`; the next step starts another.
How often that may happen is for the executor to say. A worker that hangs is left to supervision: `restart` kills it,
and a step under way then never ends. A step that is longer than `worker.step_s_max` kills it too, as a last resort.
"""

import asyncio
from typing import Any, Final

from numpy.typing import NDArray

from boards.worker.channel import Confinement, Hello, Refused
from boards.worker.interpreter import Interpreter, find_interpreter
from boards.worker.isolation.isolator import Limits
from boards.worker.isolation.proof import Choice, Proofs, choose, isolators
from boards.worker.memory import ModelMemory, Place
from boards.worker.process import WorkerProcess
from boards.worker.report import capabilities_of
from boards.worker.settings import MEMORY_SHARE, WorkerSettings
from flightsw.compute import kinds
from flightsw.compute.inference import INPUT_NAME, OUTPUT_NAME
from flightsw.compute.matrix_image import MatrixImage
from flightsw.config import BoardProfile
from flightsw.errors import BoardError, ConfigError
from flightsw.ports import Capability, Log, Model, ProductChecks

GPU_PROVIDERS: Final = ("cuda", "tensorrt")
AHEAD: Final = "ahead"
"""Name of a worker that is only tried, before its node has one."""


class WorkerRunner:
    """Implements `flightsw.ports.Runner`.

    Args:
        settings: of the worker.
        profile: gives the expected time and the power of a step.
        interpreter: runs the worker.
        limits: what the worker may take.
        choice: how it is confined.
        log: the on-board log.
        time_scale: seconds of the loop in a second of the machine.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        profile: BoardProfile,
        interpreter: Interpreter,
        limits: Limits,
        choice: Choice,
        log: Log,
        time_scale: float = 1.0,
    ) -> None:
        self._settings = settings
        self._mpix_per_s = profile.mpix_per_s.value
        self._compute_w = profile.compute_w.value
        self._interpreter = interpreter
        self._limits = limits
        self.choice = choice
        """How the worker is confined."""
        self._log = log
        self._time_scale = time_scale
        self._memory = ModelMemory()
        self._images: dict[bytes, kinds.Image] = {}
        self._places: dict[bytes, Place] = {}
        self._load_numbers: dict[bytes, int] = {}
        self._loads_count = 0
        self._hello: Hello | None = None
        self._ended_why = ""
        self._worker: WorkerProcess | None = None
        self._last: asyncio.Task[None] | None = None
        """Life of the last worker; those before it have ended."""
        self.deaths_count = 0
        """Times that the worker ended without being told to."""
        self._begin()

    # -- models

    def load(self, digest: bytes, data: bytes) -> kinds.Image:
        """Load (or load again) the model with this digest.

        Raises:
            ConfigError: the bytes are no model.
            BoardError: there is no more memory for models.
        """
        place, memory = self._memory.place(data)
        image = kinds.load(memory, name=f"model {digest.hex()[:16]}")
        self._images[digest] = image
        self._places[digest] = place
        self._loads_count += 1
        self._load_numbers[digest] = self._loads_count
        return image

    def loaded(self) -> dict[bytes, Model]:
        """Models in memory by the digest that they should have."""
        return dict(self._images)

    def unload(self, digest: bytes) -> None:
        """Forget a model in memory; no error when absent."""
        self._images.pop(digest, None)
        self._places.pop(digest, None)
        self._load_numbers.pop(digest, None)

    def weight_memory(self) -> list[kinds.Image]:
        """The images in memory, in the order of their digests: what radiation can strike."""
        return [self._images[digest] for digest in sorted(self._images)]

    # -- steps

    def step_s(self, kind: str, work_mpix: float) -> float:
        """How long a step of this much work takes by the profile [s]; it takes what it takes. Raises: ConfigError."""
        kinds.check(kind)
        return work_mpix / self._mpix_per_s

    def step_w(self, kind: str) -> float:
        """Power drawn while a step runs by the profile, on top of idle [W]. Raises: ConfigError."""
        kinds.check(kind)
        return self._compute_w

    async def step(
        self,
        kind: str,
        model: Model,
        state: bytes,
        data: bytes,
        work_mpix: float,
        checks: ProductChecks | None = None,
    ) -> bytes:
        """Run one step of a job: state (empty at first) and input bytes in, new state out.

        Raises:
            ConfigError: the worker refuses a sound model; else as `flightsw.compute.kinds.step`.
            BoardError: the image was struck and no longer runs, a product does not hold, or the worker has died.
        """
        digest = next((key for key, image in self._images.items() if image is model), None)
        if digest is None:
            raise BoardError("the model of the step is no more in memory")
        image, place = self._images[digest], self._places[digest]
        step = kinds.step(kind, image, state, data, checks)
        try:
            operation = next(step)
            while True:
                operation = step.send(await self._compute(operation, digest, image, place))
        except StopIteration as done:
            after: bytes = done.value
            return after

    def finish(self, kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
        """Result object, product object and measure, as of `flightsw.compute.kinds.finish`."""
        return kinds.finish(kind, state, data)

    # -- the worker

    @property
    def worker_pid(self) -> int:
        """Process that computes, as this machine counts; 0 while there is none."""
        return 0 if self._worker is None else self._worker.pid

    @property
    def confinement(self) -> Confinement | None:
        """How the last worker found itself confined; None before the first has started."""
        return None if self._hello is None else self._hello.confinement

    async def ready(self) -> None:
        """Wait until the worker has started. Raises: BoardError, ConfigError."""
        await self._running()

    def restart(self) -> None:
        """Kill the worker with all that it has started, and start another: models in memory are gone, and a step under
        way never ends."""
        self._images.clear()
        self._places.clear()
        self._load_numbers.clear()
        self._end()
        self._begin()

    def capabilities(self) -> tuple[Capability, ...]:
        """How the worker is confined, what of it was proven, and what it computes with."""
        return capabilities_of(self.choice, self._limits, self._hello, self._ended_why)

    async def close(self) -> None:
        """End the worker and give its memory back."""
        self._end()
        if self._last is not None:
            await asyncio.wait([self._last])
        self._images.clear()
        self._places.clear()
        self._load_numbers.clear()
        self._memory.close()

    async def _compute(
        self, operation: kinds.Operation, digest: bytes, image: kinds.Image, place: Place
    ) -> NDArray[Any]:
        header, tensor, shape = _request(operation, image, place)
        header["load"] = self._load_numbers.get(digest, 0)
        worker = await self._running()
        limit_s = self._settings.step_s_max * self._time_scale
        answer = worker.channel.request(header, tensor)
        try:
            async with asyncio.timeout(limit_s):
                result = await answer
        except TimeoutError:
            self._log("worker.slow", {"pid": worker.pid, "limit_s": self._settings.step_s_max})
            self._end()
            self._begin()
            raise BoardError(f"a step took longer than worker.step_s_max = {self._settings.step_s_max:g} s") from None
        except Refused as error:
            is_struck = image.digest() != digest
            if is_struck or error.is_memory:
                raise BoardError(f"{image.name}: the worker cannot run it: {error}") from None
            raise ConfigError(f"{image.name}: the worker refuses the model or its input: {error}") from None
        if result.shape != shape:
            kind = BoardError if image.digest() != digest else ConfigError
            raise kind(f"{image.name}: gives a tensor {result.shape}; expected {shape}")
        return result

    async def _running(self) -> WorkerProcess:
        """The worker, started when it has died. Raises: BoardError, ConfigError."""
        if self._worker is None:
            self._begin()
        worker = self._worker
        assert worker is not None, "it has begun"
        await worker.hello()
        return worker

    def _begin(self) -> None:
        worker = WorkerProcess(
            isolator=self.choice.isolator,
            limits=self._limits,
            interpreter=self._interpreter,
            provider=self._settings.provider,
            memory=self._memory,
            time_scale=self._time_scale,
            on_hello=self._greeted,
            on_end=self._died,
            after=self._last,
        )
        self._worker, self._last = worker, worker.life

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _greeted(self, hello: Hello) -> None:
        self._hello, self._ended_why = hello, ""
        self._log("worker.ready", {"pid": self.worker_pid, "provider": hello.provider, "refused": dict(hello.refusals)})

    def _died(self, why: str) -> None:
        pid = self.worker_pid
        self.deaths_count += 1
        self._ended_why = why
        self._worker = None
        self._log("worker.died", {"pid": pid, "reason": why})


async def prove_ahead(settings: WorkerSettings, proofs: Proofs) -> None:
    """Make the proofs that a worker of these settings will need, before anybody has said on which board it is.

    Raises:
        FlatrackError: as of `open_runner`.
    """
    interpreter = await find_interpreter(settings.python, 1.0)
    await choose(
        settings.isolation, isolators(AHEAD), _limits(settings, 0, interpreter), interpreter, 1.0, proofs=proofs
    )


def _limits(settings: WorkerSettings, board_bytes: float, interpreter: Interpreter) -> Limits:
    """What a worker may take of a board with so much memory."""
    is_gpu = settings.provider in GPU_PROVIDERS or (settings.provider == "auto" and interpreter.is_for_gpu)
    return Limits(
        memory_bytes=settings.memory_bytes or round(MEMORY_SHARE * board_bytes),
        cpu_cores=settings.cpu_cores,
        tasks_max=settings.tasks_max,
        needs_gpu=is_gpu,
    )


async def open_runner(
    settings: WorkerSettings,
    profile: BoardProfile,
    *,
    name: str,
    log: Log,
    time_scale: float = 1.0,
    proofs: Proofs | None = None,
    tries_all: bool = False,
) -> WorkerRunner:
    """Find out how jobs can be confined on this board, and start a worker; it need not be ready when this returns.

    Args:
        settings: `[worker]`; its isolation is not `inline`.
        profile: of the board.
        name: of the node: unique on this machine.
        log: the on-board log.
        time_scale: seconds of the loop in a second of the machine.
        proofs: of memory limits, made before.
        tries_all: whether ways of isolation are tried that are not needed for the choice.

    Raises:
        ConfigError: the interpreter does not run.
        BoardError: the isolation that is asked for cannot be had.
    """
    assert settings.isolation != "inline", "then there is no worker"
    interpreter = await find_interpreter(settings.python, time_scale)
    limits = _limits(settings, profile.memory_bytes.value, interpreter)
    choice = await choose(
        settings.isolation, isolators(name), limits, interpreter, time_scale, proofs=proofs, tries_all=tries_all
    )
    log(
        "worker.isolation",
        {"way": choice.isolator.name, "proof": choice.proof.detail, "refused": choice.refusals},
    )
    return WorkerRunner(
        settings=settings,
        profile=profile,
        interpreter=interpreter,
        limits=limits,
        choice=choice,
        log=log,
        time_scale=time_scale,
    )


def _request(
    operation: kinds.Operation, image: kinds.Image, place: Place
) -> tuple[dict[str, Any], NDArray[Any], tuple[int, ...]]:
    """Header and tensor of a request, and the shape that its answer must have."""
    if isinstance(operation, kinds.Inference):
        count, _, height, width = operation.batch.shape
        header = {"do": "infer", "input": INPUT_NAME, "output": OUTPUT_NAME}
        where = {"offset": place.offset, "length": len(image.data)}
        return {**header, **where}, operation.batch, (count, 1, height, width)
    assert isinstance(image, MatrixImage), "a product is asked of a matrix"
    left = image.matrix[operation.rows]
    start = len(image.data) - image.matrix.nbytes + operation.rows.start * image.matrix.strides[0]
    where = {"offset": place.offset + start, "length": left.nbytes}
    header = {"do": "multiply", "left_dtype": left.dtype.str}
    return {**header, **where, "left_shape": left.shape}, operation.right, (left.shape[0], operation.right.shape[1])
