"""What a node costs its machine as a program: memory and processor time of a quiet node, and the time of a boot.

    python benchmarks/node.py [--idle 60] [--boots 5] [--json FILE]

One node on a pseudo-terminal, with keys, that runs its cycle ten times and sends housekeeping once a second and has no
job: the AI runtime is not loaded. Processor time is that of the whole quiet time but its beginning. Memory is read at
its end, from `/proc/PID/smaps_rollup`: resident (RSS, what libraries share with others included) and proportional (PSS,
shares of it only). Boots are those of `benchmarks/boot.py`.
"""

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from boot import boot, started
from report import Report

from flightsw.host.loop import PacedLoop

IDLE_S: Final = 60.0
SETTLING_SHARE: Final = 0.2
"""Share of the quiet time that passes before processor time counts: what follows a boot is no quiet cycle."""
BOOTS_COUNT: Final = 5
PERIODS: Final = "tick_period_s = 0.1, housekeeping_period_s = 1.0, beacon_period_s = 10.0"
KIB_PER_MB: Final = 1e6 / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=IDLE_S, metavar="S", help="quiet time [s]")
    parser.add_argument("--boots", type=int, default=BOOTS_COUNT, metavar="N", help="boots to take the median of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args(arguments)
    report = Report("node")
    loop = PacedLoop(time.time_ns())
    with asyncio.Runner(loop_factory=lambda: loop) as runner, tempfile.TemporaryDirectory() as folder:
        runner.run(_quiet(report, Path(folder), loop, given.idle))
    report.add("boot to first beacon", median(boot()[0] for _ in range(given.boots)), "s", "< 1.5")
    if given.json is not None:
        report.write_json(given.json)


async def _quiet(report: Report, folder: Path, loop: PacedLoop, idle_s: float) -> None:
    async with started(folder, loop, PERIODS) as node:
        process = Path("/proc") / str(node.process.pid)
        boot_s = cpu_s(process)
        await asyncio.sleep(idle_s * SETTLING_SHARE)
        begun_s, spent_s, before = time.perf_counter(), cpu_s(process), node.heard.copy()
        await asyncio.sleep(idle_s * (1 - SETTLING_SHARE))
        quiet_s = time.perf_counter() - begun_s
        share = (cpu_s(process) - spent_s) / quiet_s
        heard = node.heard - before
        sizes = memory_kib(process)
        is_loaded = "onnxruntime" in (process / "maps").read_text()
    report.add("processor time of the boot", boot_s, "s")
    report.add("resident memory (RSS)", sizes["Rss"] / KIB_PER_MB, "MB", "< 60")
    report.add("proportional memory (PSS)", sizes["Pss"] / KIB_PER_MB, "MB")
    report.add("of it the process's own", sizes["Private_Dirty"] / KIB_PER_MB, "MB")
    report.add("AI runtime loaded", float(is_loaded), "", "0")
    for name, count in sorted(heard.items()):
        report.add(f"{name} messages heard", count / quiet_s, "1/s")
    report.add("share of one core, housekeeping once a second", 100 * share, "%", "< 3")


def cpu_s(process: Path) -> float:
    """Processor time of a process until now, user and system [s]. Source: proc(5), fields 14 and 15 of stat."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(process: Path) -> dict[str, int]:
    """Sizes of a process [KiB], by their names in proc(5)."""
    found = re.findall(r"^(\w+): +(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE)
    return {name: int(size) for name, size in found}


if __name__ == "__main__":
    main()
