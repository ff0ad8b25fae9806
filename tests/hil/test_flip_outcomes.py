"""What became of a board whose RAM was struck, judged by what its ground has heard."""

import numpy as np
import pytest

from flightsw.compute import cloud_mask
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon, Event, JobReport, JobSpec, JobState, Mode, Severity
from hil.emulation.flip_outcomes import Heard, Outcome, judged

NODE = 11
BOOT = 1
MODEL, DATA, RESULT = b"m" * 32, b"d" * 32, b"r" * 32
RIGHT = cloud_mask.encode_mask(np.zeros((4, 4), dtype=bool))
WRONG = cloud_mask.encode_mask(np.eye(4, dtype=bool))
SPEC = JobSpec(2, 1, "cloud_mask", MODEL, 1, DATA, 1, 8, 0.1, 3, 60, 1, 1.0)
STRUCK = "JOBS.WEIGHTS_STRUCK"


def report(state=JobState.COMPLETED, model=MODEL, result=RESULT, steps_run_count=8, resumed_count=0):
    digests, counts = (model, DATA, result), (steps_run_count, resumed_count)
    return JobReport(NODE, 2, 1, state, "why", *digests, 0, b"", 0, 0.0, *counts, 0, 1.0, "flatrack")


def event(key, severity=Severity.WARNING_LO, boot=BOOT, arguments=()):
    return Event(NODE, boot, 1, 0, severity, *key.split("."), "text", arguments)


def reset(boot, cause):
    return event("NODE.RESET", Severity.WARNING_HI, boot, (boot, cause))


def beacon(boot, cause):
    return Beacon(NODE, boot, 0, 0, Mode.NOMINAL, cause, *[0] * 12, b"d" * 8)


def outcome(heard, words="", has_ended=True):
    return judged(heard, RIGHT, words, boot=BOOT, has_ended=has_ended)


def ended(*events, result=RIGHT, beacons=(), **fields):
    """What was heard of a job that has ended."""
    said = report(result=RESULT if result else b"", **fields)
    return Heard(SPEC, list(beacons), list(events), report=said, result=result)


def test_a_right_result_without_a_word_is_masked():
    assert outcome(ended()) == (Outcome.MASKED, "")


@pytest.mark.parametrize(
    ("key", "severity"),
    [("TELEMETRY.CYCLES_SLIPPED", Severity.WARNING_LO), ("MODE.CHANGED", Severity.ACTIVITY_LO)],
)
def test_what_a_busy_machine_and_a_sound_node_say_is_no_measure(key, severity):
    assert outcome(ended(event(key, severity))).outcome is Outcome.MASKED


def test_a_right_result_after_a_measure_is_corrected_and_says_which():
    assert outcome(ended(event(STRUCK))) == (Outcome.CORRECTED, f"{STRUCK}: text")
    assert outcome(ended(event(STRUCK), event(STRUCK))).said == f"{STRUCK}: text (2 times)"


@pytest.mark.parametrize("field", ["frames_rejected_count", "unreadable_count", "repeated_count"])
def test_what_the_link_has_refused_or_repeated_is_a_measure(field):
    heard = ended()
    setattr(heard, field, 2)
    assert outcome(heard).outcome is Outcome.CORRECTED


@pytest.mark.parametrize("fields", [{"steps_run_count": 9}, {"resumed_count": 1}])
def test_steps_that_ran_again_are_a_measure(fields):
    assert outcome(ended(**fields)).outcome is Outcome.CORRECTED


def test_a_wrong_mask_is_silent_whatever_else_was_said():
    assert outcome(ended(result=WRONG)) == (Outcome.SILENT, "4 of 16 pixels of the mask are wrong")
    loud = ended(event(STRUCK), reset(2, "KILLED"), result=WRONG)
    assert outcome(loud, '"kind":"worker.died"').outcome is Outcome.SILENT
    assert outcome(loud, has_ended=False).outcome is Outcome.SILENT, "that the node fell silent later is no excuse"


def test_a_wrong_mask_of_another_size_is_refused_by_the_ground_and_so_detected():
    verdict = outcome(ended(result=cloud_mask.encode_mask(np.zeros((4, 5), dtype=bool))))
    assert verdict == (Outcome.DETECTED, "mask is (4, 5), expected (4, 4)")


def test_a_job_that_completed_without_a_result_is_detected():
    assert outcome(ended(result=b"")) == (Outcome.DETECTED, "completed without a result")


def test_a_job_that_failed_with_a_report_is_detected():
    verdict = outcome(ended(state=JobState.FAILED, result=b""))
    assert verdict == (Outcome.DETECTED, "job FAILED: why")


def test_what_a_ground_refuses_is_detected():
    assert outcome(ended(result=RIGHT[:-1])).outcome is Outcome.DETECTED
    assert outcome(ended(result=WRONG, model=DATA)).outcome is Outcome.DETECTED


@pytest.mark.parametrize("cause", ["WATCHDOG", "EXCEPTION", "KERNEL_PANIC", "KILLED"])
def test_a_node_that_came_back_with_its_cause_has_restarted(cause):
    assert outcome(ended(reset(2, cause))) == (Outcome.RESTARTED, f"boot 2 after {cause}")
    assert outcome(ended(beacons=[beacon(2, ResetCause[cause])])).outcome is Outcome.RESTARTED
    assert outcome(ended(reset(2, cause), state=JobState.FAILED)).outcome is Outcome.RESTARTED


def test_a_node_that_came_back_with_a_cause_that_there_was_not_has_crashed():
    assert outcome(ended(reset(2, "KILLED"), reset(3, "POWER_CYCLE"))).outcome is Outcome.CRASH


def test_a_node_that_came_back_without_a_cause_has_crashed():
    bare = event("NODE.RESET", Severity.WARNING_HI, 2, (2,))
    assert outcome(ended(bare)) == (Outcome.CRASH, "boot 2 after no cause")


def test_a_beacon_of_the_struck_boot_is_no_restart():
    assert outcome(ended(beacons=[beacon(BOOT, ResetCause.POWER_ON)])).outcome is Outcome.MASKED


def test_a_worker_that_died_has_restarted():
    assert outcome(ended(), '{"kind":"worker.died"}').outcome is Outcome.RESTARTED


def test_a_job_without_end_of_which_the_node_warns_is_detected():
    heard = Heard(SPEC, events=[event("HEALTH.HUNG", Severity.WARNING_HI)])
    assert outcome(heard, has_ended=False).outcome is Outcome.DETECTED


@pytest.mark.parametrize("words", ["Kernel panic - not syncing", "launcher: slot F ended with 139"])
def test_a_program_that_ended_and_did_not_come_back_has_crashed(words):
    assert outcome(Heard(SPEC), words, has_ended=False).outcome is Outcome.CRASH


def test_a_node_that_does_not_answer_hangs_also_after_a_restart():
    assert outcome(Heard(SPEC), has_ended=False).outcome is Outcome.HANG
    returned = Heard(SPEC, events=[reset(2, "KILLED")])
    verdict = outcome(returned, "launcher: slot F ended with 139", has_ended=False)
    assert verdict == (Outcome.HANG, "no end of the job; boot 2 after KILLED")
    silent_after_its_report = ended()
    assert outcome(silent_after_its_report, has_ended=False).outcome is Outcome.HANG
