"""Cut the power of every store of flight and ground, anywhere, and look whether it held what it had promised.

    python scripts/power_cuts.py                              # simulated disk, 1000 cuts of each store
    python scripts/power_cuts.py --cuts 100000                # so many cuts in all
    python scripts/power_cuts.py --real                       # real files, from their system calls; wants strace
    python scripts/power_cuts.py --subject keys --seed 7 --cut 12    # one trial again

Stores with a planted bug are among the subjects when they are named. Exit code 1 when a store lost, tore or could not
open anything. What is promised, and how a power cut is modelled: docs/storage.md.
"""

import argparse
import shutil
import sys
from pathlib import Path

from flightsw.errors import SimulationError
from hil.powercut import real, simulated
from hil.powercut.registry import FOLDER_MUTANTS, FOLDER_SUBJECTS, MUTANTS, SUBJECTS

CUTS_EACH = 1000
CUTS_EACH_REAL = 300
"""Cuts of each store when nothing is said, on the simulated disk and on real files: as in the tests."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", action="append", metavar="NAME", help="one store, or several; all when not given")
    parser.add_argument("--seed", type=int, default=1, help="of all draws")
    parser.add_argument("--cut", type=int, help="one trial: the change of the disk at which the power fails first")
    parser.add_argument("--cuts", type=int, help="cuts in all")
    parser.add_argument("--real", action="store_true", help="on real files")
    parser.add_argument("--list", action="store_true", help="print the names of all stores")
    chosen = parser.parse_args()
    known = {**FOLDER_SUBJECTS, **FOLDER_MUTANTS} if chosen.real or chosen.list else {**SUBJECTS, **MUTANTS}
    for name in chosen.subject or ():
        if name not in known:
            parser.error(f"--subject is {name}, expected one of: {', '.join(known)}")
    if chosen.cut is not None and (chosen.real or not chosen.subject):
        parser.error("--cut needs --subject, and is of the simulated disk")
    return chosen


def again(name: str, seed: int, cut: int) -> bool:
    """One trial; says whether it held."""
    faults, cuts_count = simulated.trial((SUBJECTS | MUTANTS)[name], seed, cut)
    print("\n".join(faults) or f"{name}, seed {seed}, cut {cut}: holds after {cuts_count} power cuts")
    return not faults


def on_simulated_disk(names: list[str], cuts_each: int, seed: int) -> bool:
    """Try stores on the simulated disk; says whether all held."""
    cuts_count = failures_count = 0
    print(f"{'store':28} {'power cuts':>10} {'failures':>8}")
    for name in names:
        result = simulated.explore((SUBJECTS | MUTANTS)[name], cuts_each, seed)
        cuts_count += result.cuts_count
        failures_count += len(result.failures)
        print(f"{name:28} {result.cuts_count:>10} {len(result.failures):>8}")
        if result.failures:
            print(result.failures[0])
    print(f"{'all':28} {cuts_count:>10} {failures_count:>8}")
    return not failures_count


def on_real_files(names: list[str], cuts_each: int, seed: int) -> bool:
    """Try stores on real files; says whether all held."""
    strace = shutil.which("strace")
    if strace is None:
        print("strace is not installed: apt-get install strace", file=sys.stderr)
        sys.exit(2)
    cuts_count = failures_count = 0
    print(f"{'store':28} {'operations':>10} {'power cuts':>10} {'failures':>8}")
    for name in names:
        with real.scratch() as folder:
            subject = (FOLDER_SUBJECTS | FOLDER_MUTANTS)[name]
            result = real.explore(subject, cuts_each, seed, Path(folder).resolve() / name, strace)
        cuts_count += result.cuts_count
        failures_count += result.failures_count
        print(f"{name:28} {result.operations_count:>10} {result.cuts_count:>10} {result.failures_count:>8}", flush=True)
        if result.failures:
            print(result.failures[0])
    print(f"{'all':28} {'':>10} {cuts_count:>10} {failures_count:>8}")
    return not failures_count


def main() -> None:
    """The command line."""
    chosen = arguments()
    if chosen.list:
        print("\n".join([*FOLDER_SUBJECTS, *FOLDER_MUTANTS]))
        return
    if chosen.cut is not None:
        sys.exit(not again(chosen.subject[0], chosen.seed, chosen.cut))
    names = chosen.subject or list(FOLDER_SUBJECTS if chosen.real else SUBJECTS)
    default = CUTS_EACH_REAL if chosen.real else CUTS_EACH
    cuts_each = default if chosen.cuts is None else -(-chosen.cuts // len(names))
    try:
        holds = (on_real_files if chosen.real else on_simulated_disk)(names, cuts_each, chosen.seed)
    except SimulationError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    sys.exit(not holds)


if __name__ == "__main__":
    main()
