"""The world as flight software sees it: what a board, a clock, a disk and a wire must offer.

Flight code holds these Protocols only. `boards` implements them for hardware and for the simulated board; the bench
passes them in. Nothing here can tell a simulated world from a real one.
"""

import random  # noqa: TID251 - for the type alias only; generators are always passed in
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Protocol

from flightsw.frame import Frame as Frame

Random = random.Random
"""A seeded stream of chance. Always passed in, never made inside flight or ground."""


FrameReceiver = Callable[[int, Frame], None]
"""Called with (interface, coded frame) for each frame that arrives on the lab wire."""


Log = Callable[[str, dict[str, object]], None]
"""The on-board log: (kind, fields) of what the manager does. A board writes it to its journal."""


class Clock(Protocol):
    """Two kinds of time that must never be mixed: only mission time may jump or drift."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since some instant in the past; never jumps. All timers use it."""
        ...

    def utc_ns(self) -> int:
        """Mission time [ns since 1970-01-01T00:00:00Z]; may jump and drift. No timer uses it."""
        ...


class Link(Protocol):
    """The lab wire of a node or of the ground: carries (interface, coded frame) both ways."""

    def send(self, interface: int, frame: Frame) -> None:
        """Hand over one coded frame for an interface; never blocks. Raises: LinkError."""
        ...

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving frames."""
        ...

    async def close(self) -> None:
        """Give the wire back."""
        ...


class Disk(Protocol):
    """Named files with the promises that a power cut leaves standing. Every call may raise StorageError."""

    def read(self, name: str) -> bytes:
        """The whole content."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the name is there."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end; durable only after `sync`."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """New content; durable only after `sync`, and may be torn before."""
        ...

    def sync(self, name: str) -> None:
        """Make what was appended or written durable."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """New content, atomically and durably: after a power cut the old or the new is there, whole."""
        ...

    def remove(self, name: str) -> None:
        """Forget the name; no error when absent."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Names that start with prefix, sorted."""
        ...

    def free_bytes(self) -> int:
        """What still fits."""
        ...


@unique
class ResetCause(IntEnum):
    """Why the node started. Words as in cFE ES (power-on reset, processor reset and its subtypes)."""

    POWER_ON = 1
    RESET_COMMAND = 2
    WATCHDOG = 3
    EXCEPTION = 4
    POWER_CYCLE = 5
    BROWN_OUT = 6
    KERNEL_PANIC = 7
    """The operating system of the board gave up."""
    KILLED = 8
    """The manager's program was ended from outside: by a signal, or for its memory."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """One reading of the board's housekeeping sensors."""

    charge_j: float
    """Energy left in the battery [J]."""
    battery_j: float
    """Battery capacity [J]."""
    solar_w: float
    """Power that the array gives now [W]."""
    load_w: float
    """Power that the node draws now [W]."""
    electronics_degc: float
    """Temperature of the compute electronics [degree Celsius]."""
    sunlight: float
    """Share of the sun's disc in view, 0 in umbra to 1."""
    sampled_ns: int = 0
    """When the values were taken [monotonic ns]: a reading may be older than the question."""
    memory_share: float = 0.0
    """Share of the board's memory in use, 0 to 1."""


class Board(Protocol):
    """Power, heat and identity of the hardware below the manager."""

    def sensors(self) -> Sensors:
        """Read now. Raises: SensorError."""
        ...

    def set_compute_load_w(self, load_w: float) -> None:
        """The compute load that starts now [W], on top of the idle load; a real board measures it instead."""
        ...

    def reset_cause(self) -> ResetCause:
        """Why this boot happened."""
        ...


@unique
class Support(IntEnum):
    """How far a board has what flight software would like to rely on."""

    PROVEN = 1
    """Tried on this board in this boot, and it works: a memory limit that has stopped a hog, an accelerator that has
    computed."""
    PRESENT = 2
    """The board says that it has it; nobody has tried."""
    DEGRADED = 3
    """It was there, and does not answer or answers nonsense now."""
    ABSENT = 4


@dataclass(frozen=True, slots=True)
class Capability:
    """One line of a board's capability report."""

    name: str
    """Lower case with underscores, for example `memory_limit`, `under_voltage`, `input_power`, `watchdog`."""
    support: Support
    detail: str
    """By what, or why not: one line."""


@dataclass(frozen=True, slots=True)
class HardwareReading:
    """What the board's own sensors say. A sensor that the board lacks, or that cannot be read, is not in it."""

    sampled_ns: int
    """When [monotonic ns]."""
    temperatures_degc: Mapping[str, float] = field(default_factory=dict)
    """Thermal zone or hwmon sensor -> temperature [degree Celsius]."""
    voltages_v: Mapping[str, float] = field(default_factory=dict)
    currents_a: Mapping[str, float] = field(default_factory=dict)
    powers_w: Mapping[str, float] = field(default_factory=dict)
    """Rail -> power [W]."""
    input_w: float | None = None
    """All that the board draws [W], where a sensor covers it; never a guess."""
    clocks_hz: Mapping[str, float] = field(default_factory=dict)
    power_mode: str = ""
    """As the board names it; empty where it has none."""
    is_throttled: bool | None = None
    is_under_voltage: bool | None = None
    memory_share: float | None = None
    """Share of the memory in use, 0 to 1."""
    storage_free_bytes: int | None = None
    storage_errors_count: int | None = None
    ecc_corrected_count: int | None = None
    """Memory errors that EDAC reports as corrected; None where no driver counts them."""
    ecc_uncorrected_count: int | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Sensor that the board had or should have -> why it gave no value this time."""


class Hardware(Protocol):
    """The board's own sensors and knobs, beyond the power and heat of `Board`. Reading never raises."""

    def read(self) -> HardwareReading:
        """Read all sensors now."""
        ...

    def capabilities(self) -> tuple[Capability, ...]:
        """What the board has, what of it was proven, what it lacks and why."""
        ...

    def power_modes(self) -> tuple[str, ...]:
        """Names of the power modes that can be set, the present one among them; empty where there are none."""
        ...

    def set_power_mode(self, name: str) -> None:
        """Change the power mode. Raises: BoardError."""
        ...


class Model(Protocol):
    """A model loaded into the memory that jobs run from; radiation may change it there."""

    def digest(self) -> bytes:
        """Name of an object of the loaded bytes as they are now (`flightsw.objects.digest`)."""
        ...

    def guard_weights(self) -> int:
        """Bring back weights that left the range they had when it was loaded; returns how many had."""
        ...


@dataclass(slots=True)
class ProductChecks:
    """What checksums found in matrix products (`flightsw.compute.abft`)."""

    corrected_count: int = 0
    """Elements put right."""
    repeated_count: int = 0
    """Products computed again as a whole."""
    refused_count: int = 0
    """Products that did not hold then either."""


class Runner(Protocol):
    """Runs the steps of jobs: inline on modelled time, or in a worker process on a real kind."""

    def load(self, digest: bytes, data: bytes) -> Model:
        """Load (or load again) the model with this digest into memory. Raises: ConfigError."""
        ...

    def loaded(self) -> dict[bytes, Model]:
        """Models in memory by the digest that they should have."""
        ...

    def unload(self, digest: bytes) -> None:
        """Forget a model in memory; no error when absent."""
        ...

    def restart(self) -> None:
        """Start what runs steps anew: models in memory are gone, and a step under way will not end."""
        ...

    def step_s(self, kind: str, work_mpix: float) -> float:
        """How long a step of this much work takes on this board [s]."""
        ...

    def step_w(self, kind: str) -> float:
        """Power drawn while a step runs, on top of idle [W]."""
        ...

    async def step(
        self,
        kind: str,
        model: Model,
        state: bytes,
        data: bytes,
        work_mpix: float,
        checks: ProductChecks | None = None,
    ) -> bytes:
        """Run one step of a job: state (empty at first) and input bytes in, new state out. Takes `step_s` of time.
        With `checks`, matrix products are checked by their sums, and what was found is added there."""
        ...

    def finish(self, kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
        """(result object, product object, measure) of a job whose steps are all done; the measure is the cloud
        share."""
        ...


class Watchdog(Protocol):
    """A timer outside flight software that resets the node when nobody strokes it."""

    def stroke(self, timeout_s: float) -> None:
        """The node is well: reset it, with cause WATCHDOG, unless the next stroke comes within this time [s]. The
        board starts the timer with the boot."""
        ...


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """Which software runs, and what would run next."""

    running: str
    """F the factory image, which is never overwritten; A or B what arrived in flight."""
    version: str
    """That runs."""
    image: bytes
    """Name of the running image among the objects; empty for the factory image."""
    is_trial: bool
    boots_left: int
    """Boots that the trial still has, beside this one."""
    previous: str
    """What a rollback of the committed slot goes back to; empty when there is nothing."""
    fallback: str
    """Why a slot was left; empty after a commit and while nothing was tried."""


class Slots(Protocol):
    """Slots of software. Which one boots is decided below the manager, by a launcher that the manager cannot change: a
    trial boot is counted down before anything of the slot runs. Every call but `status` may raise StorageError."""

    @property
    def target(self) -> str:
        """The kind of images that it boots, as manifests name it."""
        ...

    @property
    def launcher(self) -> int:
        """Version of what boots the slots."""
        ...

    def status(self) -> SlotStatus:
        """What runs."""
        ...

    def install(self, data: bytes, version: str, image: bytes) -> str:
        """Write an image into the slot that is not in use and read it back; returns the slot. Again without harm."""
        ...

    def request_trial(self, image: bytes, boots_count: int) -> str:
        """Boot the slot with this image on trial, this many boots at most, from the next boot on; returns the slot."""
        ...

    def commit(self) -> None:
        """Keep the slot that is on trial: it boots from now on."""
        ...

    def revert(self, reason: str) -> None:
        """Leave the trial, or the committed slot where none is on trial, with the next boot."""
        ...

    def self_test(self) -> str | None:
        """Check the running image; what is wrong with it, or None."""
        ...


@dataclass(frozen=True, slots=True)
class NodePorts:
    """What the board gives to the node."""

    clock: Clock
    link: Link
    disk: Disk
    board: Board
    runner: Runner
    reset: Callable[[ResetCause], None]
    """Restarts the node; returns, and the node is cancelled soon after."""
    log: Log
    watchdog: Watchdog | None = None
    """None on a board without one; then nothing resets a node that hangs."""
    last_words: str = ""
    """What the board has kept of the end of the last boot: the trace of an exception or of a hang; empty without."""
    hardware: Hardware | None = None
    """None where there is nothing to read beyond `board`: in a simulation."""
    slots: Slots | None = None
    """None on a board whose software cannot be updated in flight."""
