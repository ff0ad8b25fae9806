"""Power modes of a Jetson, by NVIDIA's `nvpmodel`.

`nvpmodel -q` prints `NV Power Mode: 15W` and its number; `nvpmodel -p --verbose` lists `POWER_MODEL: ID=0 NAME=15W`,
as `/etc/nvpmodel.conf` has them too; `nvpmodel -m 0` sets one. Some changes need a reboot, and nvpmodel asks for a YES
on its input. It gets no input here: the mode then stays as it was, and that is the error.
"""

import re
from collections.abc import Callable
from typing import Final

from boards.support.sysfs import BoardFiles, shown
from boards.support.tools import PacedTool, Tool, output_of
from flightsw.errors import BoardError, SensorError

QUERY: Final = ("nvpmodel", "-q")
LIST: Final = ("nvpmodel", "-p", "--verbose")
CONFIG: Final = "/etc/nvpmodel.conf"
CONFIG_BYTES_MAX: Final = 65_536
"""What is read of the configuration [bytes]: those of Orin modules have some 20,000."""
MODES_MAX: Final = 32
"""Modes that are listed: an Orin NX has five."""
PRESENT: Final = re.compile(r"NV Power Mode: ([A-Za-z0-9_.+-]{1,32})\s")
MODEL: Final = re.compile(r"POWER_MODEL:?\s+ID=([0-9]{1,3})\s+NAME=([A-Za-z0-9_.+-]{1,32})")


class NvpModes:
    """Implements the power modes of `flightsw.ports.Hardware` by nvpmodel."""

    def __init__(self, files: BoardFiles, run: Tool, tool_ns: Callable[[], int]) -> None:
        self._files = files
        self._run = run
        self._query = PacedTool(run, tool_ns, [QUERY])
        self._numbers: dict[str, str] = {}
        """Modes by name: found once, since only another release of the software changes them."""

    def present(self) -> str:
        """The mode that is set. Raises: SensorError."""
        self._query.refresh()
        text = self._query.answer(*QUERY)
        found = PRESENT.search(text + "\n")
        if found is None:
            raise SensorError(f"nvpmodel: not understood: {shown(text)}")
        return found[1]

    def names(self) -> tuple[str, ...]:
        """What can be set. Raises: SensorError."""
        return tuple(self._modes())

    def set(self, name: str) -> None:
        """Change the mode. Raises: BoardError: it cannot be set; the mode that is there now is named."""
        try:
            modes = self._modes()
        except SensorError as error:
            raise BoardError(f"power mode {name!r}: this board has no power modes: {error}") from None
        if name not in modes:
            raise BoardError(f"power mode {name!r}: expected one of {', '.join(modes)}")
        try:
            said = output_of(self._run, ("nvpmodel", "-m", modes[name]))
            self._query.forget()
            present = self.present()
        except SensorError as error:
            self._query.forget()
            raise BoardError(f"power mode {name!r} was not set: {error}") from None
        if present != name:
            why = "it takes a reboot, which was not confirmed" if "reboot" in said.lower() else shown(said.strip())
            raise BoardError(f"power mode {name!r} was not set, the board is in {present!r}: {why}")

    def _modes(self) -> dict[str, str]:
        if not self._numbers:
            try:
                text = output_of(self._run, LIST)
            except SensorError:
                text = self._files.text(CONFIG, CONFIG_BYTES_MAX)
            found = {name: number for number, name in MODEL.findall(text)[:MODES_MAX]}
            if not found:
                raise SensorError("nvpmodel lists no modes")
            self._numbers = found
        return self._numbers
