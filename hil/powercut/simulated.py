"""Power cuts on the simulated disk: at every change of a disk, before it, within it and after it.

A trial is one subject, one seed and one number: in the first life the power fails during that change of the disk,
counted from 0. A second life follows, with or without a look at the store between them, and its power fails anywhere,
often while the store is still being opened and mended. A third one lives to its end, and the power fails then. What
each cut leaves is drawn by `hil.sim.disk`. A trial repeats exactly.
"""

from dataclasses import dataclass, field
from typing import Final

from hil.powercut.outcomes import faults_of
from hil.powercut.subject import DISK_BYTES, Notes, Subject
from hil.sim.faulty_disk import FaultyDisk, PowerCut
from hil.sim.streams import Streams

LIVES: Final = 3
OPENING_CALLS: Final = 6
"""Changes of the disk in which most stores are opened and mended; half of the second cuts are within them."""


@dataclass(frozen=True)
class Failure:
    """A trial in which a store did not hold what it had promised."""

    subject: str
    seed: int
    cut: int
    faults: tuple[str, ...]

    def __str__(self) -> str:
        """What is wrong, and the line that repeats it."""
        replay = f"python scripts/power_cuts.py --subject {self.subject} --seed {self.seed} --cut {self.cut}"
        return "\n".join([f"{self.subject}, seed {self.seed}, cut {self.cut}:", *self.faults, f"again: {replay}"])


@dataclass
class Result:
    """What the trials of one subject showed."""

    subject: str
    cuts_count: int = 0
    trials_count: int = 0
    failures: list[Failure] = field(default_factory=list)


def explore(subject: Subject, cuts_min: int, first_seed: int = 1, disk_type: type[FaultyDisk] = FaultyDisk) -> Result:
    """Try seeds from the first on, every cut of each, until there were enough cuts."""
    result = Result(subject.name)
    seed = first_seed
    while result.cuts_count < cuts_min:
        for cut in range(calls_count(subject, seed, disk_type)):
            faults, cuts_count = trial(subject, seed, cut, disk_type)
            result.trials_count += 1
            result.cuts_count += cuts_count
            if faults:
                result.failures.append(Failure(subject.name, seed, cut, tuple(faults)))
            if result.cuts_count >= cuts_min:
                break
        seed += 1
    return result


def calls_count(subject: Subject, seed: int, disk_type: type[FaultyDisk] = FaultyDisk) -> int:
    """Changes of the disk in a first life without a cut; at least one."""
    disk = disk_type(DISK_BYTES, Streams(seed).random(f"{subject.name}/disk"))
    subject.live(disk, Streams(seed).random(f"{subject.name}/life 0"), Notes())
    return max(1, disk.calls_count)


def trial(subject: Subject, seed: int, cut: int, disk_type: type[FaultyDisk] = FaultyDisk) -> tuple[list[str], int]:
    """One trial; what is wrong, and how many power cuts there were."""
    streams = Streams(seed)
    random = streams.random(f"{subject.name}/cut {cut}")
    disk = disk_type(DISK_BYTES, random)
    notes = Notes()
    faults: list[str] = []
    for life in range(LIVES):
        if life == 0:
            disk.cut_power_at(cut)
        elif life < LIVES - 1:
            disk.cut_power_at(random.randrange(OPENING_CALLS if random.random() < 0.5 else 40))
        life_random = streams.random(f"{subject.name}/life {life}")
        try:
            found = faults_of(lambda: subject.live(disk, life_random, notes))  # noqa: B023
        except PowerCut:
            found = []  # the life is over, as it should be
        faults += [f"life {life}: {fault}" for fault in found]
        disk.power_cut()
        if life == 0 and random.random() < 0.5:
            continue
        faults += [f"after life {life}: {fault}" for fault in faults_of(lambda: subject.check(disk, notes))]
        if faults:
            break
    return faults, disk.power_cuts_count
