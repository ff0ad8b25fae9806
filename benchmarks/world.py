"""The environment of 2,800 satellites over one orbit: positions, eclipse, ten stations, +Grid links.

Run: python benchmarks/world.py [--json FILE]

Walker 53 degrees, 550 km, 70 planes of 40, 5,700 s at 10 s. The world works in chunks of time (SGP4) and of satellites
or links (the rest), so that the positions are nearly all of the memory that is used; the peak is printed.
"""

import resource
import time
from typing import Final

import numpy as np
from report import Report, json_path

from hil.world.contacts import Station, isl_windows, plus_grid_pairs, station_windows
from hil.world.orbits import walker
from hil.world.radiation import ProtonMap
from hil.world.sun import sunlight

PLANES: Final = 70
PER_PLANE: Final = 40
EPOCH_UTC_NS: Final = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
TIMES_S: Final = np.arange(0.0, 5_700.0 + 1, 10.0)
ISL_RANGE_KM: Final = 5_400.0  # reach of a Starlink laser (SPIE 2024, secondary text)
PLACES_DEG: Final = (
    (78.23, 15.41),
    (64.8, -147.5),
    (-72.0, 2.5),
    (-46.5, 168.4),
    (50.0, 8.0),
    (37.0, -122.0),
    (-33.0, -70.6),
    (1.3, 103.8),
    (35.0, 139.0),
    (-25.9, 27.7),
)
STATIONS: Final = tuple(
    Station(f"station-{i:02d}", latitude, longitude, 0.0, 10.0, 1) for i, (latitude, longitude) in enumerate(PLACES_DEG)
)


def main() -> None:
    """Time each stage once."""
    path = json_path("environment of 2,800 satellites over one orbit")
    report = Report("world")
    marks = [time.perf_counter()]

    def stage(name: str) -> None:
        marks.append(time.perf_counter())
        report.add(name, marks[-1] - marks[-2], "s")

    constellation = walker(PLANES * PER_PLANE, PLANES, 1, 53.0, 550.0, EPOCH_UTC_NS)
    stage("build")
    positions_km = constellation.positions_km(TIMES_S)
    stage("orbit")
    light = sunlight(positions_km, TIMES_S, EPOCH_UTC_NS)
    stage("eclipse")
    passes = station_windows(positions_km, TIMES_S, EPOCH_UTC_NS, STATIONS)
    stage("stations")
    links = isl_windows(positions_km, TIMES_S, plus_grid_pairs(PLANES, PER_PLANE), ISL_RANGE_KM)
    stage("links")
    report.add("total", marks[-1] - marks[0], "s", "at most 5 s")
    flux = ProtonMap.load("min", 30).flux(positions_km, TIMES_S, EPOCH_UTC_NS)
    stage("radiation, beside the total")

    report.add("umbra", 100 * float((light == 0).mean()), "% of samples")
    report.add("station windows", len(passes), "windows")
    report.add("link windows", len(links), "windows")
    report.add("mean flux above 30 MeV", float(flux.mean()), "1/cm2/s")
    report.add("positions", positions_km.nbytes / 1e6, "MB")
    report.add("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    if path:
        report.write_json(path)


if __name__ == "__main__":
    main()
