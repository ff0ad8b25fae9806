"""The ground's SQLite files under power cuts: the ledger with its update campaigns, and the archive."""

from pathlib import Path
from typing import Final, Literal

from flightsw.ports import Random
from flightsw.wire.messages import CommandCode, Event, Severity, Stage
from ground.archive import Archive
from ground.ledger import JobRequest, Ledger
from ground.update_book import FINAL, NodeState, Plan, UpdateBook
from hil.powercut.subject import FolderSubject, Notes, ack_all, record_faults, state_faults

LEDGER_FILE: Final = "ledger.db"
ARCHIVE_FILE: Final = "archive.db"
FLEET: Final = 4
STEPS: Final = 14


class LedgerFile:
    """Jobs, commands and campaigns on record: every promise, and no half of a transaction.

    Args:
        name: for the command line.
        synchronous: how commits are synced; anything but FULL is a planted bug.
    """

    def __init__(self, name: str = "ledger", synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL") -> None:
        self.name = name
        self._synchronous = synchronous

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """Accept jobs, place them with their command in one transaction, move commands on, run a campaign."""
        ledger = self._open(folder)
        book = UpdateBook(ledger)
        for _ in range(STEPS):
            choice = random.random()
            if choice < 0.3:
                newest = ledger.jobs(count=1)
                notes.begin("job", 1 + (newest[0]["job"] if newest else 0))
                notes.ack("job", ledger.accept(_request(), 0))
            elif choice < 0.6:
                self._place(ledger, notes)
            elif choice < 0.8:
                self._stage(ledger, notes)
            else:
                self._campaign(book, random, notes)
        ledger.close()

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """Open it as the ground does, and compare."""
        ledger = self._open(folder)
        try:
            (sound,) = ledger.database.execute("PRAGMA integrity_check").fetchone()
            faults = [] if sound == "ok" else [f"integrity check: {sound}"]
            jobs = [int(row["job"]) for row in reversed(ledger.jobs(count=1_000_000))]
            faults += record_faults(notes, "job", list(jobs))
            for number in range(1, ledger.next_command_id()):
                faults += self._check_command(ledger, number, notes)
            lost = [one for one in notes.durable("command") if int(str(one)) >= ledger.next_command_id()]
            if lost:
                faults.append(f"commands {lost} were durable and are lost")
            book = UpdateBook(ledger)
            for campaign in notes.begun("campaign"):
                found = book.find(int(str(campaign)))
                state = None if found is None else ", ".join(row.state.value for row in found.nodes)
                faults += state_faults(notes, f"campaign {campaign}", state)
            return faults
        finally:
            ledger.close()

    def _open(self, folder: Path) -> Ledger:
        ledger = Ledger(folder / LEDGER_FILE)
        if self._synchronous != "FULL":
            ledger.database.execute(f"PRAGMA synchronous = {self._synchronous}")
        return ledger

    def _place(self, ledger: Ledger, notes: Notes) -> None:
        """A job and its command: both on record, or neither."""
        jobs = ledger.open_jobs()
        if not jobs:
            return
        job = jobs[0]
        command = ledger.next_command_id()
        notes.begin("command", command)
        with ledger.transaction():
            attempt = ledger.place(job.job_id, 3, 0, 0, command)
            ledger.add_command(command, 3, "JOBS.SUBMIT", f"{job.job_id} {attempt}".encode(), 0, 0)
        notes.ack("command", command)
        notes.ack(f"stage of {command}", int(Stage.QUEUED))

    def _stage(self, ledger: Ledger, notes: Notes) -> None:
        commands = ledger.open_commands()
        if not commands:
            return
        command = commands[0]
        stage = Stage(command.stage + 1)
        notes.begin(f"stage of {command.command_id}", int(stage))
        with ledger.transaction():
            ledger.stage_command(command.command_id, stage, CommandCode.OK, "", 0)
            if stage is Stage.COMPLETED:
                ledger.fail(int(command.payload.split()[0]), 0, "done")
        notes.ack(f"stage of {command.command_id}", int(stage))

    def _check_command(self, ledger: Ledger, number: int, notes: Notes) -> list[str]:
        found = ledger.command(number)
        if found is None or number not in notes.begun("command"):
            return [f"command {number} is missing, or was never written"]
        stage = found[2]
        key = f"stage of {number}"
        if stage is Stage.QUEUED and notes.possible(key)[0] is None:
            notes.ack("command", number)
            notes.ack(key, int(stage))
        faults = state_faults(notes, key, int(stage))
        stages = [row.stage for row in ledger.chain(number)]
        if not stages or stages[-1] is not stage:
            faults.append(f"command {number} is {stage.name}, its chain ends with {stages[-1:]}")
        (payload,) = ledger.database.execute("SELECT payload FROM commands WHERE command_id = ?", (number,)).fetchone()
        job_id, attempt = payload.split()
        placed = ledger.database.execute(
            "SELECT command_id FROM attempts WHERE job_id = ? AND attempt = ?", (int(job_id), int(attempt))
        ).fetchone()
        if placed != (number,):
            faults.append(f"command {number} belongs to attempt {attempt} of job {int(job_id)}, which is not on record")
        return faults

    def _campaign(self, book: UpdateBook, random: Random, notes: Notes) -> None:
        campaign = book.newest()
        if campaign is None or all(row.state in FINAL for row in campaign.nodes):
            number = 1 if campaign is None else campaign.campaign_id + 1
            notes.begin("campaign", number)
            waiting = ", ".join([NodeState.WAITING.value] * FLEET)
            notes.begin(f"campaign {number}", waiting)
            book.begin(Plan(b"manifest", (1,), 60, 600), [(node, 0) for node in range(1, 1 + FLEET)], 0)
            notes.ack(f"campaign {number}", waiting)
            return
        state = random.choice((NodeState.STAGING, NodeState.SOAKING, NodeState.SUCCEEDED))
        for row in campaign.nodes[random.randrange(FLEET) :]:
            row.state = state
        key, shown = f"campaign {campaign.campaign_id}", ", ".join(row.state.value for row in campaign.nodes)
        notes.begin(key, shown)
        book.save(campaign, campaign.nodes)
        notes.ack(key, shown)


class ArchiveFile:
    """The archive: what a node erases when it hears of it is there; of the rest only the newest may be missing."""

    name = "archive"

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """Add events; flush them, durably or not."""
        archive = Archive(folder / ARCHIVE_FILE)
        waiting: list[int] = []
        for _ in range(STEPS):
            number = notes.next_number("event")
            notes.begin("event", number)
            archive.add_event(Event(3, 1, number, 0, Severity.WARNING_LO, "NODE", "BAD_MESSAGE", str(number)), 0)
            waiting.append(number)
            is_durable = random.random() < 0.5
            if random.random() < 0.5:
                archive.flush(is_durable=is_durable)
                if is_durable:
                    ack_all(notes, "event", waiting)
                    waiting = []
        archive.close()

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """It opens, and holds the first events without a hole."""
        archive = Archive(folder / ARCHIVE_FILE)
        try:
            found: list[int | None] = [int(text) for *_, text in archive.events(3)]
        finally:
            archive.close()
        faults = record_faults(notes, "event", found)
        begun = [one for one in notes.begun("event") if one in found or one in notes.durable("event")]
        return faults or ([] if begun == found else [f"events {found} of {begun}"])


def _request() -> JobRequest:
    return JobRequest("cloud_mask", bytes(32), 1, bytes(32), 1, 4, 1.0, 3, 3600, 2, 0.5)


def subjects() -> list[FolderSubject]:
    """All of them."""
    return [LedgerFile(), ArchiveFile()]


def mutants() -> list[FolderSubject]:
    """With a planted bug."""
    return [LedgerFile("mutant-ledger-normal", "NORMAL")]
