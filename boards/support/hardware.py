"""A board's own sensors and knobs: `flightsw.ports.Hardware` on a machine that runs Linux.

Nothing is kept of where a sensor lies: each reading looks for the chips and zones anew, so one that has moved or comes
back is found. A reading never raises; what gave no value is in its troubles.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from boards.support.capabilities import Surroundings, report
from boards.support.cpufreq import read_clocks
from boards.support.findings import Ability, Findings
from boards.support.hwmon import Memory, hottest_degc, read_chips, read_zones
from boards.support.identity import FAMILIES, HOST, JETSON, RASPBERRY_PI, Identity, identify
from boards.support.jetson import Jetson
from boards.support.linux_host import LinuxHost
from boards.support.memory import ecc_counts, memory_share
from boards.support.raspberry_pi import RaspberryPi
from boards.support.readings import BoardReading, Draft
from boards.support.storage import FreeBytes, free_bytes_at, read_storage
from boards.support.sysfs import BoardFiles, Reader, read_file
from boards.support.tools import Tool, run_tool
from boards.support.uart import find_uart
from boards.support.watchdog_device import WatchdogDevice, watchdogs
from flightsw.errors import ConfigError, SensorError
from flightsw.ports import Capability

AUTO: Final = "auto"


class PowerModes(Protocol):
    """Power modes of a board."""

    def present(self) -> str:
        """The mode that is set. Raises: SensorError."""
        ...

    def names(self) -> tuple[str, ...]:
        """What can be set. Raises: SensorError."""
        ...

    def set(self, name: str) -> None:
        """Change the mode. Raises: BoardError."""
        ...


class Family(Protocol):
    """What boards of one maker have beyond what Linux gives everywhere."""

    @property
    def modes(self) -> PowerModes:
        """Its power modes."""
        ...

    @property
    def chips(self) -> frozenset[str] | None:
        """Names of the hwmon chips that are read as any other; None reads all."""
        ...

    @property
    def expected(self) -> tuple[str, ...]:
        """Temperatures that each board of the family has."""
        ...

    @property
    def soc_prefixes(self) -> tuple[str, ...]:
        """How names of temperatures begin that are of the SoC."""
        ...

    @property
    def absences(self) -> dict[Ability, str]:
        """Why a board of the family may lack an ability."""
        ...

    def survey(self, draft: Draft, findings: Findings) -> None:
        """Read what only this family has."""
        ...


MAKERS: Final[dict[str, Callable[[BoardFiles, Identity, Tool, Callable[[], int]], Family]]] = {
    RASPBERRY_PI: RaspberryPi,
    JETSON: Jetson,
    HOST: LinuxHost,
}


class BoardHardware:
    """Implements `flightsw.ports.Hardware`.

    Args:
        files: of the board.
        identity: which board it is.
        family: what its maker's boards have.
        monotonic_ns: the time.
        state_folder: where the node keeps its state, as a name on the board.
        free_bytes: space that is left where a folder lies.
    """

    def __init__(
        self,
        files: BoardFiles,
        identity: Identity,
        family: Family,
        monotonic_ns: Callable[[], int],
        state_folder: str,
        free_bytes: FreeBytes,
    ) -> None:
        self.identity = identity
        self._files = files
        self._family = family
        self._monotonic_ns = monotonic_ns
        self._state_folder = state_folder
        self._free_bytes = free_bytes
        self._known: dict[str, Ability] = {}
        self._memory = Memory()
        self._has_set_mode = False

    def read(self) -> BoardReading:
        """Read all sensors now. Takes milliseconds; where vcgencmd is asked, up to 0.2 s, at first 0.4 s."""
        sampled_ns = self._monotonic_ns()
        files, family, draft, findings = self._files, self._family, Draft(), Findings(self._known)
        read_zones(files, draft, findings)
        read_chips(files, draft, findings, family.chips, self._memory)
        findings.expect(Ability.TEMPERATURE, family.expected)
        draft.clocks_hz = read_clocks(files, findings)
        family.survey(draft, findings)
        power_mode = findings.optional(Ability.POWER_MODES, "power_mode", family.modes.present) or ""
        storage = read_storage(files, findings, self._state_folder, self._free_bytes)
        corrected, uncorrected = ecc_counts(files, findings)
        memory = findings.value(Ability.MEMORY_USE, "memory", partial(memory_share, files))
        return BoardReading(
            sampled_ns=sampled_ns,
            temperatures_degc=draft.temperatures_degc,
            voltages_v=draft.voltages_v,
            currents_a=draft.currents_a,
            powers_w=draft.powers_w,
            input_w=draft.input_w,
            clocks_hz=draft.clocks_hz,
            power_mode=power_mode,
            is_throttled=draft.is_throttled,
            is_under_voltage=draft.is_under_voltage,
            memory_share=memory,
            storage_free_bytes=storage.free_bytes,
            storage_errors_count=storage.errors_count,
            ecc_corrected_count=corrected,
            ecc_uncorrected_count=uncorrected,
            soc_degc=hottest_degc(draft.temperatures_degc, family.soc_prefixes),
            fans_rpm=draft.fans_rpm,
            gpu_load=draft.gpu_load,
            throttling=draft.throttling,
            storage=storage,
            troubles=findings.close(),
        )

    def capabilities(self) -> tuple[Capability, ...]:
        """What the board has, what of it was proven, what it lacks and why; reads the sensors once."""
        reading = self.read()
        try:
            uart, uart_trouble = find_uart(self._files, self.identity), ""
        except SensorError as error:
            uart, uart_trouble = "", str(error)
        try:
            modes, modes_trouble = self._family.modes.names(), ""
        except SensorError as error:
            modes, modes_trouble = (), str(error)
        surroundings = Surroundings(
            uart=uart,
            uart_trouble=uart_trouble,
            modes=modes,
            modes_trouble=modes_trouble,
            has_set_mode=self._has_set_mode,
            watchdog=self.watchdog(),
            files=self._files,
            known=dict(self._known),
        )
        return report(reading, surroundings, self._family.absences)

    def power_modes(self) -> tuple[str, ...]:
        """Names of the power modes that can be set; empty where there are none."""
        try:
            return self._family.modes.names()
        except SensorError:
            return ()

    def set_power_mode(self, name: str) -> None:
        """Change the power mode. Raises: BoardError: names what was asked, and what there is."""
        self._family.modes.set(name)
        self._has_set_mode = True

    def uart(self) -> Path:
        """Device of the header's UART, found by its device-tree node. Raises: SensorError: why there is none."""
        return self._files.path(find_uart(self._files, self.identity))

    def watchdog(self) -> WatchdogDevice | None:
        """The machine's first watchdog; None where there is none."""
        return next(iter(watchdogs(self._files)), None)


def open_hardware(
    kind: str,
    *,
    root: Path = Path("/"),
    monotonic_ns: Callable[[], int],
    run: Tool = run_tool,
    read: Reader = read_file,
    state_folder: str = "/",
    free_bytes: FreeBytes = free_bytes_at,
    tool_ns: Callable[[], int] | None = None,
) -> BoardHardware:
    """The sensors and knobs of a board.

    Args:
        kind: `auto` takes the family that the board says it is of; or `raspberry-pi`, `jetson`, `host`, and `host` fits
            any board.
        root: folder that stands for `/`.
        monotonic_ns: the time.
        run: runs the maker's tools.
        read: reads one file; recorded trees give their own.
        state_folder: where the node keeps its state, as a name on the board: whose space and file system count.
        free_bytes: space that is left where a folder lies.
        tool_ns: the time that paces the tools, that of the machine; without it `monotonic_ns`.

    Raises:
        ConfigError: there is no such kind, or the board is of another.
    """
    files = BoardFiles(root, read)
    identity = identify(files)
    if kind not in (AUTO, *FAMILIES):
        raise ConfigError(f"board.kind = {kind!r}: expected one of {', '.join((AUTO, *FAMILIES))}")
    if kind not in (AUTO, HOST, identity.family):
        raise ConfigError(
            f"board.kind = {kind!r}: this board is {identity.model or 'without a name'!r} of family "
            f"{identity.family!r}: expected {AUTO!r}, {identity.family!r} or {HOST!r}"
        )
    family = MAKERS[identity.family if kind == AUTO else kind](files, identity, run, tool_ns or monotonic_ns)
    return BoardHardware(files, identity, family, monotonic_ns, state_folder, free_bytes)
