"""A simulated disk that refuses: files that cannot be read, writes that fail, space that is gone, power that goes.

| fault | asked for by | seen by flight as |
|---|---|---|
| unreadable file | `spoil` | `read` raises, until new content is written or replaced |
| writes that fail | `fail_writes` | every change of the names raises; an `append` may leave a part |
| full disk | `fill` | what does not fit raises |
| power fails during a call | `cut_power_at` | `PowerCut` |
| rot, a lost sector | `flip_bit`, `lose_sector` of the disk itself | content that is wrong |
"""

from collections.abc import Callable

from flightsw.errors import StorageError
from flightsw.ports import Random
from hil.sim.disk import SimulatedDisk


class PowerCut(BaseException):
    """The power failed during a call of the disk. Not an error of the software: no handler of errors may take it."""


class FaultyDisk(SimulatedDisk):
    """A simulated disk with the faults that one asks for; none at first.

    Args:
        capacity_bytes: what all contents together may take [bytes].
        random: the stream that power cuts and partial writes draw from.
    """

    def __init__(self, capacity_bytes: int, random: Random) -> None:
        super().__init__(capacity_bytes, random)
        self.calls_count = 0
        """Calls that change something."""
        self._whole_bytes = capacity_bytes
        self._unreadable: set[str] = set()
        self._failing: tuple[str, ...] = ()
        self._cut_at: int | None = None
        self._is_off = False

    # The world's side

    def spoil(self, name: str) -> None:
        """Make a file unreadable until it has new content. Raises: StorageError when absent."""
        self._file(name)
        self._unreadable.add(name)

    def fail_writes(self, *prefixes: str) -> None:
        """From now on all changes fail of names that start with one of these; with none, all succeed again."""
        self._failing = prefixes

    def fill(self, free_bytes: int = 0) -> None:
        """Take away all space but this much [bytes]; `unfill` gives it back."""
        self.capacity_bytes = self._used_bytes + free_bytes

    def unfill(self) -> None:
        """Give back the space that `fill` took."""
        self.capacity_bytes = self._whole_bytes

    def cut_power_at(self, call: int | None) -> None:
        """Let the power fail during a changing call, counted from 0 for the next one; None: never."""
        self._cut_at = None if call is None else self.calls_count + call

    def power_cut(self) -> None:
        """Lose what a power cut may lose; the disk then answers again."""
        self._is_off = False
        self._cut_at = None
        super().power_cut()
        self._unreadable &= self._files.keys()

    # The Disk port

    def read(self, name: str) -> bytes:
        """The whole content. Raises: StorageError when absent or unreadable."""
        self._check_power()
        if name in self._unreadable:
            raise StorageError(f"read {name}: input/output error")
        return super().read(name)

    def append(self, name: str, data: bytes) -> None:
        """Add to the end. Raises: StorageError; a failing write may leave a part."""
        self._strike(name, lambda: super(FaultyDisk, self).append(name, data[: self._random.randint(0, len(data))]))
        super().append(name, data)

    def write(self, name: str, data: bytes) -> None:
        """New content. Raises: StorageError; a failing write leaves the old, a part of the new, or nothing."""
        self._strike(name, lambda: super(FaultyDisk, self).write(name, data[: self._random.randint(0, len(data))]))
        super().write(name, data)
        self._unreadable.discard(name)

    def sync(self, name: str) -> None:
        """Make it durable. Raises: StorageError; it then may be so or not."""
        self._strike(name, lambda: None)
        super().sync(name)

    def replace(self, name: str, data: bytes) -> None:
        """New content, atomically and durably. Raises: StorageError; the old or the whole new content stands."""
        self._strike(name, lambda: super(FaultyDisk, self).replace(name, data))
        super().replace(name, data)
        self._unreadable.discard(name)

    def remove(self, name: str) -> None:
        """Forget the name. Raises: StorageError."""
        self._strike(name, lambda: super(FaultyDisk, self).remove(name))
        super().remove(name)
        self._unreadable.discard(name)

    def _strike(self, name: str, partly: Callable[[], None]) -> None:
        """What happens to a changing call instead of it; one time in two a part of it was done."""
        self._check_power()
        is_cut = self.calls_count == self._cut_at
        self.calls_count += 1
        is_failing = bool(self._failing) and name.startswith(self._failing)
        if not is_cut and not is_failing:
            return
        if self._random.random() < 0.5:
            partly()
        if is_cut:
            self._is_off = True
            raise PowerCut(f"during call {self.calls_count - 1}, of {name}")
        raise StorageError(f"{name}: input/output error")

    def _check_power(self) -> None:
        if self._is_off:
            raise PowerCut("the power is off")
