"""Board profiles: what the manager, the scheduler and the simulated board must know of a board and its satellite bus.

One TOML file for each board, each number with its source and a flag: V verified in the primary source, S secondary
text, D derived or chosen by us, U unverified. The bus around a board (array, battery, radiator) is our design, made so
that the node computes all the time in sunlight, that computing on through a 36-minute eclipse would cut into the
reserve while idling would not, and that heat is no limit except on the largest node, which computes in bursts. Tests
check all of that on the simulated board.
"""

import math
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from flightsw.config import BoardProfile, Sourced, convert, load_toml
from flightsw.errors import ConfigError

SUFFIX: Final = ".toml"

MAY_BE_ZERO: Final = (
    "bus_w",
    "compute_w",
    "idle_w",
    "absorbed_sun_w",
    "absorbed_albedo_ir_w",
    "model_cross_section_cm2_bit",
)
SHARES: Final = ("charge_efficiency", "discharge_efficiency", "radiator_emissivity")
MAX_DEGC_RANGE: Final = (0.0, 150.0)
"""Where a limit of electronics can lie [degree Celsius]: outside, somebody wrote kelvin or Fahrenheit."""

PAGE_HEAD: Final = (
    "# Board profiles",
    "",
    "Printed from `boards/profiles/*.toml` by `boards.profiles.page()`; edit those. A profile of your own is a TOML",
    "file with the same fields; give its path where a name is expected.",
    "",
    "Flags: V verified in the primary source, S secondary text, D derived or chosen by us, U unverified. Nobody has",
    "run flatrack on these boards yet: speeds and loads are estimates where they say so.",
    "",
    "`flatrack board benchmark --out mine.toml`, run on a board, measures it in half an hour (`boards/benchmark.py`):",
    "speed of the shipped model in the worker, power at rest and under load where a sensor covers all of it, and heat",
    "capacity and conductance to the air by a fit of one mass to the processor's temperature at rest, under load and",
    "cooling. What it has measured has flag V, with board, date and runs as its source; what it cannot measure stays",
    "as it was, and is said.",
    "",
    "| profile | TOPS | Mpix/s | idle + compute + bus [W] | array [W] | battery [Wh] | radiator [m2] | max [degC] |",
    "|---|---|---|---|---|---|---|---|",
)


def names() -> list[str]:
    """Names of the profiles that come with flatrack, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def load(name: str | Path) -> BoardProfile:
    """The profile with this name, or in the TOML file at this path.

    Raises:
        ConfigError: no such profile or file, or a field is wrong; names where, field, value and expectation.
    """
    if isinstance(name, Path) or name.endswith(SUFFIX):
        return _checked(load_toml(Path(name), BoardProfile), str(name))
    return _load_shipped(name)


@cache
def _load_shipped(name: str) -> BoardProfile:
    if name not in names():
        raise ConfigError(f"board profile {name!r}: expected one of {', '.join(names())}, or the path of a TOML file")
    text = (resources.files(__name__) / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return _checked(convert(tomllib.loads(text), BoardProfile, f"board profile {name}"), f"board profile {name}")


def numbers(profile: BoardProfile) -> dict[str, Sourced]:
    """All numbers of a profile by field, in the order of the fields."""
    values = {field: getattr(profile, field) for field in profile.__struct_fields__}
    return {field: value for field, value in values.items() if isinstance(value, Sourced)}


def page() -> str:
    """`docs/profiles.md`: every number of every profile."""
    lines = list(PAGE_HEAD)
    profiles = [load(name) for name in names()]
    for profile in profiles:
        columns = [f"[{profile.name}](#{profile.name})", _text(profile.peak_tops), _text(profile.mpix_per_s)]
        columns.append(" + ".join(_text(load_w) for load_w in (profile.idle_w, profile.compute_w, profile.bus_w)))
        columns += [_text(profile.array_w), _text(profile.battery_wh), _text(profile.radiator_area_m2)]
        columns.append(_text(profile.electronics_max_degc))
        lines.append(f"| {' | '.join(columns)} |")
    for profile in profiles:
        lines += [
            "",
            f"## {profile.name}",
            "",
            f"{profile.title}.",
            "",
            "| field | value | flag | source |",
            "|---|---|---|---|",
        ]
        for field, number in numbers(profile).items():
            lines.append(f"| `{field}` | {_text(number)} | {number.flag} | {number.source} |")
    return "\n".join(lines) + "\n"


def _text(number: Sourced) -> str:
    return f"{number.value:.12g}"


def _checked(profile: BoardProfile, where: str) -> BoardProfile:
    for field, number in numbers(profile).items():
        value = number.value
        if field in SHARES:
            fits, expectation = 0.0 < value <= 1.0, "above 0, at most 1"
        elif field == "electronics_max_degc":
            fits, expectation = MAX_DEGC_RANGE[0] <= value <= MAX_DEGC_RANGE[1], "0 to 150 degree Celsius"
        elif field in MAY_BE_ZERO:
            fits, expectation = value >= 0.0, "0 or more"
        else:
            fits, expectation = value > 0.0, "above 0"
        if not (fits and math.isfinite(value)):
            raise ConfigError(f"{where}: {field} is {value}; expected {expectation}")
    return profile
