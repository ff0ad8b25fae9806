"""Escalation: what is done about a party that hangs. One ladder, climbed only when the step before did not help.

| rung | what is done | for whom | how often |
|---|---|---|---|
| event | it is reported | all | each time |
| restart | it is started again, the node stays | who can be (`flightsw.core.health`) | `RESTARTS_MAX` times |
| node | no stroke until the watchdog resets the node | all | until the limit of processor resets |
| power | the board takes the power away and gives it back | all | `boots.POWER_CYCLES_MAX` times in a row |

After a step a party is given `COOLDOWN_S` before the next one, so that the step can work. A party that has been well
for `CALM_S` begins at the bottom again, and so do all after a loss of power. How far each has come is durable: a reset
must not send the node round the same rungs for ever. Nothing is written while nobody hangs.

The words are those of cFS HS, whose one table also leads from event over application restart to processor reset and
power-on reset, with a cooldown and a limit of resets; a missing application counts as one that hangs.
"""

from enum import Enum, unique
from typing import Annotated, Final

import msgspec

from flightsw.component import Report
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor

NAME: Final = "escalation"

RESTARTS_MAX: Final = 2
"""Restarts of one party before the node is reset: what two did not mend is not in the party alone."""

COOLDOWN_S: Final = 60.0
"""After a step, nothing more is done about the same party for this long [s]: the step must be able to help first. Not
longer than the watchdog waits, so that a second restart comes before its reset."""

CALM_S: Final = 900.0
"""A party that has been well for this long [s] begins at the bottom of the ladder again: longer than a step of a job
takes on most boards, so that a worker that hangs in each step does not count as calm."""

RECORD_BYTES_MAX: Final = 8192
"""The record [bytes]: all parties of a node by name, with a count each."""

PARTY_CHARACTERS_MAX: Final = 64
"""Longest name of a party: those of components and tasks are a third of it."""

NS_PER_S: Final = 1_000_000_000
Taken = dict[
    Annotated[str, msgspec.Meta(max_length=PARTY_CHARACTERS_MAX)], Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
]


@unique
class Step(Enum):
    """What is to be done about a party."""

    WAIT = "wait"
    RESTART = "restart"
    RESET_NODE = "reset the node"


class Escalation:
    """The ladder of one node.

    Args:
        disk: where it is kept how far each party has come.
        report: takes events.
    """

    def __init__(self, disk: Disk, report: Report) -> None:
        self._copies = TwoCopies(disk, NAME)
        self._report = report
        self._taken: Taken = {}
        """Party -> restarts that it was given since it was last calm."""
        self._stepped_ns: dict[str, int] = {}
        """Party -> when something was last done about it, or when it last hung."""
        self.unsaved_count = 0
        self.steps_count = 0
        self._load()

    @property
    def taken(self) -> Taken:
        """Party -> restarts since it was last calm."""
        return self._taken

    def step(self, party: str, can_restart: bool, now_ns: int) -> Step:
        """What to do about a party that hangs now; WAIT while the last step may still help."""
        last_ns = self._stepped_ns.get(party)
        if last_ns is not None and now_ns - last_ns < round(COOLDOWN_S * NS_PER_S):
            return Step.WAIT
        self._stepped_ns[party] = now_ns
        self.steps_count += 1
        taken = self._taken.get(party, 0)
        if not can_restart or taken >= RESTARTS_MAX:
            self._report("HEALTH.ESCALATED", party, Step.RESET_NODE.value)
            return Step.RESET_NODE
        self._taken[party] = taken + 1
        self._save()
        self._report("HEALTH.ESCALATED", party, Step.RESTART.value)
        return Step.RESTART

    def cycle(self, now_ns: int) -> None:
        """Let time pass: parties that have been well long enough are forgiven."""
        if not self._taken:
            return
        for party in list(self._taken):
            # of what an earlier boot counted, the calm begins with this one's first cycle
            if now_ns - self._stepped_ns.setdefault(party, now_ns) >= round(CALM_S * NS_PER_S):
                del self._taken[party], self._stepped_ns[party]
                self._save()

    def forgive(self) -> None:
        """By command: all begin at the bottom again."""
        self._stepped_ns.clear()
        if self._taken:
            self._taken.clear()
            self._save()

    def _load(self) -> None:
        try:
            data = self._copies.load()
            self._taken = {} if data is None else _decode(data)
        except (StorageError, MessageError):
            self._taken = {}  # the count is gone with both copies: the limit of processor resets still stands

    def _save(self) -> None:
        try:
            self._copies.store(cbor.dumps(self._taken, RECORD_BYTES_MAX))
        except StorageError:
            self.unsaved_count += 1


def _decode(data: bytes) -> Taken:
    """Raises: MessageError."""
    try:
        return msgspec.convert(cbor.loads(data, RECORD_BYTES_MAX), Taken)
    except msgspec.ValidationError as error:
        raise MessageError(f"escalation: {error}") from None
