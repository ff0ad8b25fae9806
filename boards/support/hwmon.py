"""Thermal zones and hwmon chips: what any board that runs Linux may have.

Units in the files: temperatures m°C, voltages mV, currents mA, powers µW, fans revolutions a minute. A value that no
board on a table can have is nonsense: a zone whose block has no power gives -256 °C on some kernels.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from boards.support.findings import KNOWN_MAX, Ability, Findings
from boards.support.readings import Draft
from boards.support.sysfs import BoardFiles, channels, cooling_devices, hwmon_chips, thermal_zones

DEGC_RANGE: Final = (-60.0, 200.0)
VOLTS_RANGE: Final = (-60.0, 60.0)
AMPERES_RANGE: Final = (-200.0, 200.0)
WATTS_RANGE: Final = (0.0, 2_000.0)
RPM_RANGE: Final = (0.0, 50_000.0)
"""What is believed."""
COOLING_STATE_MAX: Final = 1_000
"""Largest state of a cooling device that is believed: one that slows a clock has as many as there are clocks."""


def read_zones(files: BoardFiles, draft: Draft, findings: Findings) -> None:
    """Temperatures of all thermal zones, by their types."""
    for zone in thermal_zones(files):
        read = partial(files.number, f"{zone.folder}/temp", 1000, *DEGC_RANGE)
        findings.enter(draft.temperatures_degc, Ability.TEMPERATURE, zone.name, read)


@dataclass(slots=True)
class Memory:
    """What things were called at first: a name that cannot be read for once makes no new sensor."""

    channels: dict[str, str] = field(default_factory=dict)
    """Chip and channel -> chip and label."""
    zones: set[str] = field(default_factory=set)
    """Names that chips have which are thermal zones."""


def read_chips(
    files: BoardFiles, draft: Draft, findings: Findings, wanted: frozenset[str] | None, memory: Memory
) -> None:
    """All that chips of these names measure, of all chips when `wanted` is None, by chip and label.

    A chip that is a thermal zone under another name is left out: it would be read twice.
    """
    if len(memory.zones) < KNOWN_MAX:
        memory.zones.update(zone.name.replace("-", "_") for zone in thermal_zones(files))
    kinds = (
        ("temp", 1000, DEGC_RANGE, draft.temperatures_degc, Ability.TEMPERATURE),
        ("in", 1000, VOLTS_RANGE, draft.voltages_v, Ability.VOLTAGES),
        ("curr", 1000, AMPERES_RANGE, draft.currents_a, Ability.POWER_RAILS),
        ("power", 1_000_000, WATTS_RANGE, draft.powers_w, Ability.POWER_RAILS),
        ("fan", 1, RPM_RANGE, draft.fans_rpm, Ability.FAN),
    )
    for chip in hwmon_chips(files):
        kind_name = chip.name.partition("#")[0]
        if kind_name in memory.zones or not (wanted is None or kind_name in wanted):
            continue
        for kind, parts, limits, values, ability in kinds:
            for channel in channels(files, chip, kind):
                place = f"{chip.name}/{channel}"
                label = files.text_or(f"{chip.folder}/{channel}_label", channel)
                name = memory.channels.get(place, f"{chip.name}/{label}")
                if len(memory.channels) < KNOWN_MAX:
                    memory.channels[place] = name
                if name in values:  # two channels of one label
                    name = place
                read = partial(files.number, f"{chip.folder}/{channel}_input", parts, *limits)
                findings.enter(values, ability, name, read)


def read_slowed(files: BoardFiles, findings: Findings, prefixes: tuple[str, ...]) -> list[bool]:
    """For each cooling device whose type begins so, whether it slows something down now."""
    states = [
        findings.value(
            Ability.THROTTLING,
            f"{device.name} cooling",
            partial(files.integer, f"{device.folder}/cur_state", 0, COOLING_STATE_MAX),
        )
        for device in cooling_devices(files)
        if device.name.startswith(prefixes)
    ]
    return [state > 0 for state in states if state is not None]


def hottest_degc(temperatures_degc: dict[str, float], prefixes: tuple[str, ...]) -> float | None:
    """The hottest of the sensors whose names begin so [degree Celsius]; None where none gave a value."""
    return max((value for name, value in temperatures_degc.items() if name.startswith(prefixes)), default=None)
