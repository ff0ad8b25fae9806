"""What emulated boards cost: the image, a boot, a restore, eight boards, a trial of RAM flips.

    python benchmarks/emulated.py [--boards 8] [--restores 5] [--trials 20] [--folder FOLDER] [--json FILE]

Needs root, QEMU and what builds images (docs/boards/emulated.md). With an empty `--folder` everything is built, the
download of Debian's packages included; otherwise only what is missing there, and the times say so. A board answers when
its on-board fault agent has said hello; its manager has booted when the on-board log says so.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from report import Report

from hil.emulation.flip_campaign import FlipCampaign, run_campaign
from hil.emulation.flip_places import Where
from hil.emulation.image import ImageFiles, build
from hil.emulation.machine import Machine
from hil.emulation.ram_flips import SUBJECTS, SubjectName, Trial
from hil.emulation.ready import TAG, ready_snapshot, wait_for_agent, wait_for_console
from hil.emulation.snapshot import Snapshot
from hil.emulation.struck_node import NodeSubject
from hil.emulation.tools import scratch_folder
from hil.faults.weights import wilson_95
from hil.on_board.remote import AgentPeer

SEED = 1
STRIKES: dict[Where, int] = {"weights": 1, "ram": 64}
"""What is struck, and by how many flips in a trial."""
BOOTED = '"kind":"node.boot"'


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=8, metavar="N", help="boards that are restored at once")
    parser.add_argument("--restores", type=int, default=5, metavar="N", help="restores to take the median of")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials of RAM flips of each kind")
    parser.add_argument("--folder", type=Path, help="where images are kept; without, an empty one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args(arguments)
    report = Report("emulated boards")
    with tempfile.TemporaryDirectory() as folder, scratch_folder() as runs:
        begun_s = time.perf_counter()
        files = build("qemu-virt", given.folder or Path(folder))
        report.add("image", time.perf_counter() - begun_s, "s", "< 90")
        asyncio.run(_measure(report, files, Path(runs), given))
    if given.json is not None:
        report.write_json(given.json)


async def _measure(report: Report, files: ImageFiles, folder: Path, given: argparse.Namespace) -> None:
    begun_s = time.perf_counter()
    ready = await ready_snapshot(files)
    report.add("first boot to the snapshot", time.perf_counter() - begun_s, "s", "< 60")
    report.add("snapshot", ready.ram.stat().st_blocks * 512 / 1e6, "MB")
    times_s = [await _restored(files, folder, ready, 1) for _ in range(given.restores)]
    report.add("restore to first answer", median(times_s), "s", "< 1")
    report.add(
        f"{given.boards} boards, until all answer", await _restored(files, folder, ready, given.boards), "s", "< 5"
    )
    booted_s = await _restored(files, folder, ready, given.boards, _manager_boots)
    report.add(f"{given.boards} boards, until the managers of all have booted", booted_s, "s")
    board = Machine(files, folder, "board", origin=ready)
    await board.start()
    await board.save(TAG)
    begun_s = time.perf_counter()
    await board.load(TAG)
    await wait_for_agent(board)
    report.add("live restore to first answer", time.perf_counter() - begun_s, "s", "< 0.5")
    await board.kill()
    board.close()
    for subject in SUBJECTS:
        await _strike(report, files, subject, given.trials)


async def _manager_boots(board: Machine) -> None:
    """Tell a board who it is, and return when its manager runs."""
    agent = await AgentPeer.open(board.agent_path)
    await agent.configure(NodeSubject(board).settings())
    await agent.close()
    await wait_for_console(board, BOOTED)


async def _restored(
    files: ImageFiles,
    folder: Path,
    ready: Snapshot,
    count: int,
    until: Callable[[Machine], Awaitable[None]] = wait_for_agent,
) -> float:
    """How long until all of some boards that are started together have got so far [s]."""
    boards = [Machine(files, folder, f"board{number}", origin=ready) for number in range(count)]

    async def up(board: Machine) -> None:
        await board.start()
        await until(board)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for board in boards:
            tasks.create_task(up(board))
    took_s = time.perf_counter() - begun_s
    for board in boards:
        await board.kill()
        board.close()
    return took_s


async def _strike(report: Report, files: ImageFiles, subject: SubjectName, count: int) -> None:
    for where, flips_count in STRIKES.items():
        ends_s: list[float] = []
        trials: list[Trial] = []

        def take(number: int, trial: Trial, ends_s: list[float] = ends_s, trials: list[Trial] = trials) -> None:
            ends_s.append(time.perf_counter())
            trials.append(trial)

        await run_campaign(FlipCampaign(subject, where, flips_count, SEED, range(count + 1)), files, 1, take)
        took_s = [after - before for before, after in pairwise(ends_s)]
        name = f"{subject}, {flips_count} flips in {where}"
        report.add(f"{name}: a trial", median(took_s), "s", "< 5" if subject == "manager" else "< 0.5")
        for outcome, found in Counter(trial.outcome for trial in trials).most_common():
            low, high = wilson_95(found, len(trials))
            report.add(f"{name}: {outcome.value}, of {len(trials)}", found, f"[{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main()
