"""Trials and campaigns of RAM flips on boards that follow a script: who hangs, who is given up, who is told what."""

import asyncio
from types import SimpleNamespace

import pytest

from flightsw.errors import BoardError
from hil.emulation import flip_campaign, ram_flips
from hil.emulation.copies import Extent
from hil.emulation.flip_campaign import FlipCampaign, run_campaign
from hil.emulation.flip_outcomes import Outcome, Verdict
from hil.emulation.flip_places import Places
from hil.emulation.flip_subjects import Patience
from hil.emulation.memory import PAGE_BYTES, RAM_BASE
from hil.emulation.ram_flips import RESTARTS_MAX, SUBJECTS, Notes, RamFlips, Stage, Trial

PLACES = Places(PAGE_BYTES, [Extent(RAM_BASE, 0, 100)], {})
LOOKS_MAX = 100


class Board:
    """Stands in for a machine and for who is asked on it.

    Args:
        used_s: processor time between two looks.
        words: look -> what the console says then.
        off_at: look at which QEMU has ended with the exit code; None for never.
    """

    patience = Patience(worked_s=1.0, idle_s=0.25, idle_share=0.5)

    def __init__(self, name="board", used_s=0.0, words=lambda look: "", off_at=None, exit_code=0):
        self.name = name
        self.pid = 1
        self.exit_code = None
        self.memory = SimpleNamespace(flip=lambda address, bit: None)
        self.has_answer = False
        self.silent = False
        self.looks_count = -1  # the first is before the trial
        self.calls = []
        self.said = ""
        self._used_s, self._words, self._off_at, self._code = used_s, words, off_at, exit_code

    # as a machine

    async def start(self):
        self.pid = 1
        self.calls.append("start")

    async def freeze(self):
        self.calls.append("freeze")
        if self.pid is None:
            raise BoardError("stop: QEMU has ended")

    async def load(self, tag):
        self.calls.append("load")

    async def save(self, tag):
        self.calls.append("save")

    async def resume(self):
        self.calls.append("resume")

    async def kill(self):
        self.calls.append("kill")
        self.pid = None

    async def ended(self):
        if self.pid is not None:
            await asyncio.Event().wait()

    def close(self):
        self.calls.append("close")

    def forget_words(self):
        self.said = ""

    def console(self):
        return self.said

    def last_words(self):
        return self.said

    def cpu_s(self):
        self.looks_count += 1
        assert self.looks_count < LOOKS_MAX, "patience has no end"
        self.said += self._words(self.looks_count)
        if self.looks_count == self._off_at:
            self.pid, self.exit_code = None, self._code
        return self.looks_count * self._used_s

    # as a subject

    async def connect(self):
        pass

    async def disconnect(self):
        pass

    async def ask(self):
        if not self.has_answer:
            await asyncio.Event().wait()

    def starts(self, words):
        return words.count("boots")

    def judged(self, expected, words, *, has_ended):
        if self.silent:
            return Verdict(Outcome.SILENT)
        return Verdict(Outcome.MASKED if has_ended else Outcome.HANG, words)


@pytest.fixture
def scripted(monkeypatch):
    """Makes campaigns on scripted boards, whose looks take no time."""
    monkeypatch.setattr(ram_flips, "lab_s", lambda seconds: 0.0)
    monkeypatch.setitem(SUBJECTS, "job", lambda machine: machine)
    return lambda board: RamFlips(board, Stage("job", None, Notes(PLACES, b""), "d1"))


@pytest.mark.parametrize(
    ("used_s", "words", "looks_count"),
    [
        (0.3, lambda look: "", 4),  # it computes: 1.2 s
        (0.0, lambda look: "", 3),  # it does nothing: 0.3 s
        (0.06, lambda look: "", 17),  # it does something: 1.02 s
        (0.3, lambda look: "boots" if look == 3 else "", 3 + 4),
        (0.0, lambda look: "boots" if look == 2 else "", 2 + 3),
        (0.3, lambda look: "boots" if look > 0 else "", RESTARTS_MAX + 4),
    ],
)
async def test_a_board_hangs_when_its_patience_is_over_which_begins_anew_at_a_start(
    scripted, used_s, words, looks_count
):
    board = Board(used_s=used_s, words=words)
    assert (await scripted(board).trial(())).outcome is Outcome.HANG
    assert board.looks_count == looks_count


async def test_a_trial_is_judged_by_its_own_words(scripted):
    board = Board(words=lambda look: f"{look} ")
    campaign = scripted(board)
    assert (await campaign.trial(())).said == "0 1 2 3 "
    assert (await campaign.trial(())).said == "4 5 6 7 "


async def test_a_board_that_switches_itself_off_has_crashed_and_gets_power_for_the_next_trial(scripted):
    board = Board(off_at=2)
    campaign = scripted(board)
    assert await campaign.trial(()) == Trial((), Outcome.CRASH, "the board has switched itself off")
    board.has_answer = True
    board.calls.clear()
    assert (await campaign.trial(())).outcome is Outcome.MASKED
    assert board.calls == ["freeze", "kill", "start", "freeze", "load", "resume"]


async def test_a_wrong_mask_is_silent_although_the_board_switches_itself_off_after_it(scripted):
    board = Board(off_at=2)
    board.silent = True
    assert (await scripted(board).trial(())).outcome is Outcome.SILENT


async def test_a_qemu_that_fails_is_no_outcome(scripted):
    campaign = scripted(Board(off_at=2, exit_code=-6))
    for _ in range(2):
        with pytest.raises(BoardError, match="QEMU has ended"):
            await campaign.trial(())


async def test_a_board_that_cannot_do_its_job_unstruck_is_not_struck(scripted):
    with pytest.raises(BoardError, match="nothing was struck, and the board is hang"):
        await scripted(Board()).prepare()


# Campaigns of scripted boards


@pytest.fixture
def boards(monkeypatch, scripted):
    """Boards of a campaign, as they are made; each answers at once. Sets their words by name."""
    made = []

    def make(files, folder, name, *, origin):
        made.append(Board(name))
        made[-1].has_answer = True
        return made[-1]

    async def stage(name, files):
        return Stage(name, None, Notes(PLACES, b""), "d1")

    monkeypatch.setattr(flip_campaign, "Machine", make)
    monkeypatch.setattr(flip_campaign, "stage_of", stage)
    return made


async def test_boards_share_the_trials_and_all_begin_where_the_snapshot_stands(boards):
    found, stages = [], []
    campaign = FlipCampaign("job", "ram", 1, 1, range(20))
    await run_campaign(campaign, None, 2, lambda number, trial: found.append((number, trial)), stages.append)
    assert sorted(number for number, _ in found) == list(range(20))
    assert all(trial.flips == PLACES.draw("ram", 1, 1, number) for number, trial in found)
    assert [one.digest for one in stages] == ["d1"]
    for board in boards:
        assert board.calls[:5] == ["start", "freeze", "save", "freeze", "load"], "it stands still when it is saved"
        assert board.calls.count("load") > 2
        assert board.calls[-2:] == ["kill", "close"]


async def test_a_campaign_starts_no_boards_without_trials(boards):
    await run_campaign(FlipCampaign("job", "ram", 1, 1, [7]), None, 2, lambda number, trial: None)
    assert len(boards) == 1


async def test_the_failure_of_one_board_ends_a_campaign_in_its_own_words(boards):
    def take(number, trial):
        if number == 5:
            raise BoardError("board1: it burns")

    with pytest.raises(BoardError, match="board1: it burns"):
        await run_campaign(FlipCampaign("job", "ram", 1, 1, range(20)), None, 2, take)
    assert [board.calls[-2:] for board in boards] == [["kill", "close"]] * 2
