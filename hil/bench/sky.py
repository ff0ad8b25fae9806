"""The sky of a scenario: contacts, sunlight and proton flux, computed once and shared by all runs of the scenario."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from boards.simulated.world import World
from flightsw.config import SunInterval
from flightsw.errors import ConfigError
from flightsw.net.contacts import Contact, ContactPlan
from hil.bench.scenario import ElementsOrbit, RingOrbit, Scenario, TableOrbit, WalkerOrbit, isl_pairs
from hil.world import orbits
from hil.world.contacts import Station, Window, assign_antennas, isl_windows, station_windows
from hil.world.radiation import ProtonMap
from hil.world.sun import sunlight, sunlit_intervals

GROUND_NODE: Final = 1
"""Node number of the ground segment; satellites follow from `FIRST_NODE`."""
FIRST_NODE: Final = 11
"""Node number of the first satellite: ipn:11.x is the first of the fleet."""
RADIO: Final = 0
FORE: Final = 1
AFT: Final = 2
"""Interfaces of a satellite in a ring: radio to the ground, laser to the next and to the previous one."""
TAIL_S: Final = 900.0
"""The sky reaches this far past the run [s], so that forecasts near its end see the next sunrise and pass."""
NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sight:
    """A window between two interfaces of two nodes, with its ranges."""

    link: str
    a: tuple[int, int]
    """(node, interface)."""
    b: tuple[int, int]
    window: Window


@dataclass(frozen=True)
class Sky:
    """What the world does during a run.

    Attributes:
        sights: windows of every link, by start.
        sun: per fleet index, predicted sunlit intervals.
        sunlight: (n, t) share of the sun's disc in view, each `step_s`.
        flux: (n, t) protons [1/cm2/s], zero without radiation in the scenario.
        station_interfaces: ground interface numbers of each station's antennas.
    """

    sights: tuple[Sight, ...]
    sun: tuple[tuple[SunInterval, ...], ...]
    sunlight: NDArray[np.float32]
    flux: NDArray[np.float64]
    step_s: float
    station_interfaces: tuple[tuple[int, ...], ...]

    def world(self, index: int) -> World:
        """What the sky does to the board of one fleet index."""
        return World(
            sun=tuple((one.start_ns, one.end_ns) for one in self.sun[index]),
            sunlight=tuple(min(1.0, float(share)) for share in self.sunlight[index]),
            step_s=self.step_s,
        )

    def plan(self, scenario: Scenario, ceilings_bps: Mapping[int, float] | None = None) -> ContactPlan:
        """The predicted contacts: windows less the longest acquisition, both directions.

        Args:
            scenario: the sky's.
            ceilings_bps: node -> what its lab wire carries of each link [bit/s], where that is less than the link.
        """
        ceilings_bps = ceilings_bps or {}
        contacts: list[Contact] = []
        for sight in self.sights:
            spec = scenario.links.ground if sight.a[0] == GROUND_NODE else scenario.links.isl
            assert spec is not None, "a sight exists only for a class of links that the scenario has"
            acquisition_s = spec.impairments.acquisition_s[1]
            start_ns = round((sight.window.start_s + acquisition_s) * NS_PER_S)
            end_ns = round(sight.window.end_s * NS_PER_S)
            if end_ns <= start_ns:
                continue
            light_time_ns = round(float(sight.window.range_km.max()) / orbits.LIGHT_KM_S * NS_PER_S)
            rate_bps = min(
                spec.impairments.rate_bps, *(ceilings_bps.get(end[0], math.inf) for end in (sight.a, sight.b))
            )
            for (source, source_if), (target, target_if) in ((sight.a, sight.b), (sight.b, sight.a)):
                contacts.append(
                    Contact(start_ns, end_ns, source, source_if, target, target_if, rate_bps, light_time_ns)
                )
        return ContactPlan(contacts)


def compute(scenario: Scenario) -> Sky:
    """The sky of a scenario; remembered, since runs that differ in seed and faults only share it.

    Raises:
        ConfigError: the orbit cannot be propagated, or its file is wrong.
    """
    bare = msgspec.structs.replace(scenario, faults=(), expect={}, workload=None)
    return _compute(msgspec.json.encode(bare, order="deterministic"))


@lru_cache(maxsize=8)
def _compute(encoded: bytes) -> Sky:
    scenario = msgspec.json.decode(encoded, type=Scenario)
    if isinstance(scenario.orbit, TableOrbit):
        return _table(scenario, scenario.orbit)
    constellation = _constellation(scenario)
    step_s = scenario.world_step_s
    times_s = np.arange(0.0, scenario.duration_s + TAIL_S + step_s, step_s)
    positions_km = constellation.positions_km(times_s)
    epoch = scenario.epoch_utc_ns
    stations = [
        Station(s.name, s.latitude_deg, s.longitude_deg, s.altitude_m, s.min_elevation_deg, s.antennas)
        for s in scenario.stations
    ]
    interfaces, sights = _ground_sights(
        scenario, assign_antennas(station_windows(positions_km, times_s, epoch, stations), stations)
    )
    sights += _isl_sights(scenario, positions_km, times_s)
    flux = np.zeros((len(scenario.nodes), len(times_s)))
    if scenario.radiation is not None:
        proton_map = ProtonMap.load(scenario.radiation.solar, scenario.radiation.energy_mev)
        flux = proton_map.flux(positions_km, times_s, epoch)
    intervals = sunlit_intervals(positions_km, times_s, epoch)
    return Sky(
        sights=tuple(sorted(sights, key=lambda sight: (sight.window.start_s, sight.link))),
        sun=tuple(
            tuple(SunInterval(round(start * NS_PER_S), round(end * NS_PER_S)) for start, end in row)
            for row in intervals
        ),
        sunlight=sunlight(positions_km, times_s, epoch),
        flux=flux,
        step_s=step_s,
        station_interfaces=interfaces,
    )


def _table(scenario: Scenario, orbit: TableOrbit) -> Sky:
    """Light and one pass that does not end."""
    end_s, count = scenario.duration_s + TAIL_S, len(scenario.nodes)
    times_s = np.array([0.0, end_s])
    range_km = np.full(2, orbit.range_km)
    windows = [Window(index, 0, 0.0, end_s, times_s, range_km) for index in range(count)]
    interfaces, sights = _ground_sights(scenario, windows)
    return Sky(
        sights=tuple(sights),
        sun=((SunInterval(0, round(end_s * NS_PER_S)),),) * count,
        sunlight=np.ones((count, 2), dtype=np.float32),
        flux=np.zeros((count, 2)),
        step_s=end_s,
        station_interfaces=interfaces,
    )


def _constellation(scenario: Scenario) -> orbits.Constellation:
    names = tuple(node.name for node in scenario.nodes)
    orbit = scenario.orbit
    if isinstance(orbit, RingOrbit):
        return orbits.ring(
            names, orbit.altitude_km, orbit.inclination_deg, orbit.raan_deg, orbit.phase_deg, scenario.epoch_utc_ns
        )
    if isinstance(orbit, WalkerOrbit):
        return orbits.walker(
            len(names), orbit.planes, orbit.phasing, orbit.inclination_deg, orbit.altitude_km, scenario.epoch_utc_ns
        )
    assert isinstance(orbit, ElementsOrbit), "the scenario's types list all orbits"
    path = Path(orbit.file)
    loaded = orbits.load_tle(path) if path.suffix in (".tle", ".txt") else orbits.load_omm(path)
    if len(loaded.names) < len(names):
        raise ConfigError(f"{path}: holds {len(loaded.names)} satellites, the fleet has {len(names)} nodes")
    return orbits.Constellation(names, loaded.satrecs[: len(names)], scenario.epoch_utc_ns)


def _ground_sights(scenario: Scenario, windows: list[Window]) -> tuple[tuple[tuple[int, ...], ...], list[Sight]]:
    """Give each window of a station one of its antennas."""
    interfaces: list[tuple[int, ...]] = []
    first = 0
    for station in scenario.stations:
        interfaces.append(tuple(range(first, first + station.antennas)))
        first += station.antennas
    free_s = [0.0] * first
    sights = []
    for window in sorted(windows, key=lambda w: (w.start_s, w.b, w.a)):
        antenna = next(i for i in interfaces[window.b] if free_s[i] <= window.start_s)
        free_s[antenna] = window.end_s
        link = f"{scenario.stations[window.b].name}/{scenario.nodes[window.a].name}"
        sights.append(Sight(link, (GROUND_NODE, antenna), (FIRST_NODE + window.a, RADIO), window))
    return tuple(interfaces), sights


def _isl_sights(scenario: Scenario, positions_km: NDArray[np.float64], times_s: NDArray[np.float64]) -> list[Sight]:
    pairs = isl_pairs(scenario)
    if not pairs or scenario.links.isl is None:
        return []
    terminals = isl_terminals(scenario)
    by_pair = {(min(a, b), max(a, b)): (a, b) for a, b in pairs}
    sights = []
    for window in isl_windows(positions_km, times_s, pairs, scenario.links.isl.range_km_max):
        a, b = by_pair[min(window.a, window.b), max(window.a, window.b)]
        a_if, b_if = terminals[a, b]
        link = f"{scenario.nodes[a].name}/{scenario.nodes[b].name}"
        sights.append(Sight(link, (FIRST_NODE + a, a_if), (FIRST_NODE + b, b_if), window))
    return sights


def isl_terminals(scenario: Scenario) -> dict[tuple[int, int], tuple[int, int]]:
    """The laser terminals that each inter-satellite link uses at its two ends: interface 1 and up, in link order."""
    used = [0] * len(scenario.nodes)
    terminals = {}
    for a, b in isl_pairs(scenario):
        used[a] += 1
        used[b] += 1
        terminals[a, b] = (used[a], used[b])
    return terminals


def flux_steps(sky: Sky, index: int, from_s: float, to_s: float) -> list[tuple[float, float]]:
    """(start of step [s], flux [1/cm2/s]) of one satellite where the flux is not zero."""
    row = sky.flux[index]
    starts = [step * sky.step_s for step in range(len(row))]
    low, high = bisect_right(starts, from_s) - 1, bisect_right(starts, to_s)
    return [(starts[step], float(row[step])) for step in range(max(0, low), high) if row[step] > 0]
