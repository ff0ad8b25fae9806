"""Power cuts on the simulated disk: no store loses what it called durable, and each opens; planted bugs are found."""

import subprocess
import sys
from pathlib import Path

import pytest

from hil.powercut import simulated
from hil.powercut.medium import Medium
from hil.powercut.mutants import NeverDurable
from hil.powercut.recording import Change, Create, Cut, MakeFolder, Remove, Rename, SyncFile, SyncFolder
from hil.powercut.registry import FOLDER_SUBJECTS, MUTANTS, SUBJECTS
from hil.powercut.subject import Note, Notes, blob, number_of, record_faults, state_faults
from hil.sim.disk import SECTOR_BYTES
from hil.sim.streams import Streams

ROOT = Path(__file__).resolve().parents[2]
CUTS_EACH = 1000
CUTS_MIN = 10_000
"""Power cuts of a run of the tests."""
CUTS_EACH_SLOW = 100_000 // len(SUBJECTS) + 1
MUTANT_CUTS = 400


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_power_cut_costs_a_store_what_it_had_promised(name):
    result = simulated.explore(SUBJECTS[name], CUTS_EACH)
    assert not result.failures, f"{len(result.failures)} of {result.trials_count} trials\n{result.failures[0]}"
    assert result.cuts_count >= CUTS_EACH
    print(f"{name}: {result.cuts_count} power cuts, none lost anything")


def test_a_rule_is_not_disabled_by_the_states_of_a_set_that_was_given_up():
    assert simulated.trial(SUBJECTS["limits"], 5096, 7)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_nor_do_a_hundred_thousand(name):
    result = simulated.explore(SUBJECTS[name], CUTS_EACH_SLOW, first_seed=1001)
    assert not result.failures, f"{len(result.failures)} of {result.trials_count} trials\n{result.failures[0]}"
    print(f"{name}: {result.cuts_count} power cuts, none lost anything")


def test_there_are_ten_thousand_cuts_in_a_run_and_every_kind_of_store_is_among_them():
    assert CUTS_EACH * len(SUBJECTS) >= CUTS_MIN
    assert {"parameters", "recorder", "objects", "sequences", "audit", "update"} <= SUBJECTS.keys()
    assert {"ledger", "slots"} <= FOLDER_SUBJECTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found_and_repeats(name):
    result = simulated.explore(MUTANTS[name], MUTANT_CUTS)
    assert result.failures, f"{name} was not found in {result.cuts_count} cuts"
    first = result.failures[0]
    assert f"--subject {name} --seed {first.seed} --cut {first.cut}" in str(first)
    assert tuple(simulated.trial(MUTANTS[name], first.seed, first.cut)[0]) == first.faults


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_subject_passes_on_a_disk_that_syncs_nothing(name):
    result = simulated.explore(SUBJECTS[name], MUTANT_CUTS, disk_type=NeverDurable)
    assert result.failures, f"{name} sees nothing in {result.cuts_count} cuts"


def script(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "power_cuts.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_repeats_a_trial_and_says_what_is_wrong():
    held = script("--subject", "two-copies", "--seed", "3", "--cut", "5")
    assert (held.returncode, held.stdout) == (0, "two-copies, seed 3, cut 5: holds after 3 power cuts\n")
    name = "mutant-never-synced"
    first = simulated.explore(MUTANTS[name], MUTANT_CUTS).failures[0]
    found = script("--subject", name, "--seed", str(first.seed), "--cut", str(first.cut))
    assert (found.returncode, found.stdout.splitlines()) == (1, list(first.faults))


def test_a_wrong_name_is_a_usage_error():
    wrong = script("--subject", "nothing")
    assert wrong.returncode == 2
    assert "--subject is nothing, expected one of: record-log" in wrong.stderr


# What subjects say


def test_a_state_is_the_last_durable_one_or_one_begun_since():
    notes = Notes()
    assert state_faults(notes, "state", None) == []
    notes.ack("state", 1)
    notes.begin("state", 2)
    notes.begin("state", 3)
    assert notes.possible("state") == [1, 2, 3]
    assert state_faults(notes, "state", 4) == ["state is 4, expected 1 or 2 or 3"]
    assert state_faults(notes, "state", 2) == []
    assert state_faults(notes, "state", 1) == ["state is 1, expected 2"], "what a boot has found stands"


def test_records_that_are_lost_strange_torn_or_out_of_order_are_named():
    notes = Notes()
    for number in range(4):
        notes.begin("record", number)
    notes.ack("record", 1)
    assert record_faults(notes, "record", [0, 2, 3]) == ["records [1] were durable and are lost"]
    assert record_faults(notes, "record", [2, 3], first=2) == []
    assert record_faults(notes, "record", [1, None]) != []
    assert record_faults(notes, "record", [1, 2, 3, 7]) == ["records [7] were never written"]
    assert record_faults(notes, "record", [2, 1, 3]) == ["records are out of order: [2, 1, 3]"]


def test_a_blob_tells_its_number_unless_it_is_damaged():
    data = blob(7, 1500)
    assert (len(data), number_of(data)) == (1500, 7)
    assert number_of(data[:-1]) is None
    assert number_of(data + b"\0") is None
    assert number_of(data[:512] + bytes(512) + data[1024:]) is None


# What a disk may hold


def images(operations, held=None, count=200):
    random = Streams(1).random("images")
    medium = Medium(held or {})
    for operation in operations:
        medium.take(operation)
    return [medium.after_cut(random) for _ in range(count)]


def test_what_is_synced_with_its_folder_survives_and_a_name_alone_may_not():
    made = [Create("a", 0), Change(0, 0, b"data"), SyncFile(0)]
    assert {tuple(image) for image in images(made)} == {(), ("a",)}
    assert all(image == {"a": b"data"} for image in images([*made, SyncFolder(".")]))


def test_unsynced_sectors_are_old_or_new_in_any_mixture_and_one_may_be_torn():
    old, new = blob(1, 4 * SECTOR_BYTES), blob(2, 4 * SECTOR_BYTES)
    mixtures, torn_count = set(), 0
    for image in images([Change(0, 0, new)], {"a": old}, 500):
        content = image["a"]
        assert len(content) == len(old)
        sectors = range(0, len(old), SECTOR_BYTES)
        kinds = tuple(
            "new"
            if content[at : at + SECTOR_BYTES] == new[at : at + SECTOR_BYTES]
            else "old"
            if content[at : at + SECTOR_BYTES] == old[at : at + SECTOR_BYTES]
            else "torn"
            for at in sectors
        )
        assert kinds.count("torn") <= 1
        torn_count += "torn" in kinds
        mixtures.add(kinds)
    assert {("old",) * 4, ("new",) * 4, ("old", "new", "old", "new")} <= mixtures
    assert torn_count > 20


def test_a_file_that_grew_may_be_short_or_hold_zeros():
    grown = [Change(0, 2, b"x" * 1000), Cut(0, 900)]
    contents = {image["a"] for image in images(grown, {"a": b"ab"}, 5000)}
    assert {b"ab", b"ab" + b"x" * 898, b"ab" + bytes(898)} <= contents
    assert max(map(len, contents)) == 1002


def test_names_survive_in_order():
    changes = [Create("b", 1), Rename("b", "a"), Remove("a")]
    found = {tuple(image.items()) for image in images(changes, {"a": b"old"})}
    assert found == {(("a", b"old"),), (("a", b"old"), ("b", b"")), (("a", b""),), ()}
    assert all(image == {} for image in images([*changes, SyncFolder(".")], {"a": b"old"}))


def test_what_lies_in_a_folder_goes_with_it():
    made = [MakeFolder("f"), Create("f/a", 0), SyncFile(0), SyncFolder("f")]
    assert {tuple(image) for image in images(made)} == {(), ("f", "f/a")}
    assert {tuple(image) for image in images([*made, SyncFolder("."), Note(True, "x", 1)])} == {("f", "f/a")}
