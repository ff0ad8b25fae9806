"""What became of a board whose RAM was struck, judged from outside.

| outcome | the board |
|---|---|
| MASKED | answers as if nothing had happened |
| CORRECTED | answers rightly, and says that a measure of flight software has acted |
| DETECTED | says that it cannot do the job, or gives what a ground refuses |
| SILENT | answers wrongly, and nobody can tell |
| GARBLED | answers with a line that is none |
| RESTARTED | has lost its manager, its worker or its kernel, has come back saying why, and the job has ended |
| CRASH | has lost the program, or its kernel, and does not come back, or with another cause than there was; or power |
| HANG | does not answer |
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final, NamedTuple

from flightsw.compute import cloud_mask
from flightsw.errors import WireError
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon, Event, JobReport, JobSpec, JobState, Severity, Verification

CRASH_WORDS: Final = ("Kernel panic", "Internal error", "Unable to handle kernel")
"""What a kernel says at its end."""
ENDED_WORDS: Final = ("launcher: slot F ended with", "flatrack.service: Main process exited")
"""What launcher and systemd say at the end of the manager."""
WORKER_ENDED: Final = '"kind":"worker.died"'
"""A line of the on-board log, which a board without a bench writes to its console."""
UNASKED: Final = (ResetCause.WATCHDOG, ResetCause.EXCEPTION, ResetCause.KERNEL_PANIC, ResetCause.KILLED)
"""Causes of a boot after an end that nobody asked for."""
OF_A_BOOT: Final = ("NODE.RESET", "NODE.LAST_WORDS")
OF_A_BUSY_MACHINE: Final = ("TELEMETRY.CYCLES_SLIPPED",)
"""Warnings that say nothing of a strike: an emulated board is late when other programs use its cores."""


@unique
class Outcome(Enum):
    """What became of a trial."""

    MASKED = "masked"
    CORRECTED = "corrected"
    DETECTED = "detected"
    SILENT = "silent corruption"
    GARBLED = "garbled"
    RESTARTED = "restarted"
    CRASH = "crash"
    HANG = "hang"


class Verdict(NamedTuple):
    """An outcome, and by what it was judged."""

    outcome: Outcome
    said: str = ""


@dataclass(slots=True)
class Heard:
    """What a ground has heard of its node in one trial.

    Attributes:
        spec: the job that it asked for.
        beacons, events: all.
        answers: command -> the end of its chain.
        report: of the job.
        result: of the reported job, when it is here; its digest holds.
        frames_rejected_count: frames of the node whose checks did not hold.
        unreadable_count: payloads that are no message.
        repeated_count: segments that the ground has sent again.
    """

    spec: JobSpec | None = None
    beacons: list[Beacon] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    answers: dict[int, Verification] = field(default_factory=dict)
    report: JobReport | None = None
    result: bytes = b""
    frames_rejected_count: int = 0
    unreadable_count: int = 0
    repeated_count: int = 0

    @property
    def boot(self) -> int:
        """The newest boot that was heard of; 0 for none."""
        boots = [one.boot_count for one in self.beacons] + [one.boot_count for one in self.events]
        return max(boots, default=0)

    def causes(self, after: int) -> list[str]:
        """`boot 2 after KILLED`, for each boot after this one that has said why it began."""
        told = {one.boot_count: ResetCause(one.reset_cause).name for one in self.beacons}
        told |= {one.boot_count: _cause_of(one) for one in self.events if key_of(one) == "NODE.RESET"}
        return [f"boot {boot} after {cause}" for boot, cause in sorted(told.items()) if boot > after]

    def warnings(self) -> list[str]:
        """What the node has said went wrong, but for boots, which `causes` has, and the bench's own doing."""
        left_out = (*OF_A_BOOT, *OF_A_BUSY_MACHINE)
        warned = [one for one in self.events if one.severity <= Severity.WARNING_LO and key_of(one) not in left_out]
        counts = Counter(f"{key_of(one)}: {one.text}" for one in warned)
        return [text if count == 1 else f"{text} ({count} times)" for text, count in counts.items()]


def key_of(event: Event) -> str:
    """Component and name of an event."""
    return f"{event.component}.{event.name}"


def _cause_of(reset: Event) -> str:
    """What NODE.RESET says of its cause, its second argument; a struck node may leave it out."""
    return str(reset.arguments[1]) if len(reset.arguments) > 1 else "no cause"


def judged(heard: Heard, expected: bytes, words: str, *, boot: int, has_ended: bool) -> Verdict:
    """What became of a node that was asked for a job.

    Args:
        heard: by its ground.
        expected: result of the job.
        words: what its console has said since the strike.
        boot: that was struck.
        has_ended: whether the job has ended, and the node has answered after that.
    """
    boots, warnings, report = heard.causes(boot), heard.warnings(), heard.report
    refusal = "" if report is None else _refusal(heard.spec, report, heard.result, expected)
    if heard.result and heard.result != expected and not refusal:
        return Verdict(Outcome.SILENT, _said(_difference(heard.result, expected), *boots, *warnings))
    if not has_ended or report is None:
        missing = "no end of the job" if report is None else "the job has ended, and no word after it"
        return _without_end(missing, boots, warnings, words)
    if boots:
        is_true = all(one.endswith(tuple(f" {cause.name}" for cause in UNASKED)) for one in boots)
        return Verdict(Outcome.RESTARTED if is_true else Outcome.CRASH, _said(*boots, refusal, *warnings))
    if WORKER_ENDED in words:
        return Verdict(Outcome.RESTARTED, _said("the worker has died", refusal, *warnings))
    if refusal:
        return Verdict(Outcome.DETECTED, _said(refusal, *warnings))
    return _of_a_right_result(heard, report, warnings)


def _refusal(spec: JobSpec | None, report: JobReport, result: bytes, expected: bytes) -> str:
    """Why a ground does not take a report as the end of the job, as `ground.cluster` and `ground.program` judge it."""
    if report.state is not JobState.COMPLETED:
        return f"job {report.state.name}: {report.detail}"
    if not report.result:
        return "completed without a result"
    if spec is None or (report.model, report.data) != (spec.model, spec.data):
        return "computed with another model or input"
    try:
        shape, tile = cloud_mask.decode_mask(result).shape, cloud_mask.decode_mask(expected).shape
    except WireError as error:
        return f"no mask: {error}"
    return "" if shape == tile else f"mask is {shape}, expected {tile}"


def _difference(result: bytes, expected: bytes) -> str:
    found, true = cloud_mask.decode_mask(result), cloud_mask.decode_mask(expected)
    return f"{(found != true).sum()} of {true.size} pixels of the mask are wrong"


def _without_end(missing: str, boots: Sequence[str], warnings: Sequence[str], words: str) -> Verdict:
    """The job has not ended, as far as the ground knows, or the node has fallen silent after it."""
    if warnings:
        return Verdict(Outcome.DETECTED, _said(missing, *boots, *warnings))
    last = next((word for word in (*CRASH_WORDS, *ENDED_WORDS) if word in words), "")
    if last and not boots:
        return Verdict(Outcome.CRASH, _said(f"console: {last}"))
    return Verdict(Outcome.HANG, _said(missing, *boots))


def _of_a_right_result(heard: Heard, report: JobReport, warnings: Sequence[str]) -> Verdict:
    signs = list(warnings)
    if report.steps_run_count > cloud_mask.STEPS or report.resumed_count:
        signs.append(f"{report.steps_run_count} steps for {cloud_mask.STEPS}")
    counts = {
        "frames rejected": heard.frames_rejected_count,
        "payloads rejected": heard.unreadable_count,
        "segments repeated": heard.repeated_count,
    }
    signs += [f"{count} {what}" for what, count in counts.items() if count]
    return Verdict(Outcome.CORRECTED, _said(*signs)) if signs else Verdict(Outcome.MASKED)


def _said(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
