"""Power cuts on real files, from the system calls of a process: the same promises, and the ground's databases too."""

from pathlib import Path

import pytest

from hil.powercut import real
from hil.powercut.child import line_of, read_notes
from hil.powercut.recording import (
    CallReader,
    Change,
    Create,
    Cut,
    MakeFolder,
    Recording,
    RecordingError,
    Remove,
    Rename,
    SyncFile,
    SyncFolder,
    record,
)
from hil.powercut.registry import FOLDER_MUTANTS, FOLDER_SUBJECTS
from hil.powercut.subject import Note

CUTS_EACH = 300


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDER_SUBJECTS)
def test_no_power_cut_costs_a_store_on_real_files_what_it_had_promised(name, need_tool):
    with real.scratch() as folder:
        result = real.explore(
            FOLDER_SUBJECTS[name], CUTS_EACH, 1, Path(folder).resolve() / "files", need_tool("strace")
        )
    assert not result.failures_count, f"{result.failures_count} of {result.cuts_count} cuts\n{result.failures[0]}"
    assert result.cuts_count >= CUTS_EACH
    print(f"{name}: {result.cuts_count} power cuts between {result.operations_count} operations, none lost anything")


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDER_MUTANTS)
def test_a_planted_bug_is_found_on_real_files(name, need_tool):
    with real.scratch() as folder:
        files = Path(folder).resolve() / "files"
        result = real.explore(FOLDER_MUTANTS[name], CUTS_EACH, 1, files, need_tool("strace"))
    assert result.failures_count, f"{name} was not found in {result.cuts_count} cuts"
    assert f"--real --subject {name} --seed 1" in result.failures[0]


@pytest.mark.slow
def test_a_subject_that_fails_without_a_cut_is_an_error_with_its_traceback(tmp_path, need_tool):
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(RecordingError, match=r"(?s)no-such-store: .*KeyError"):
        record("no-such-store", folder, 1, 1, [], need_tool("strace"))


# Reading strace


def hexed(text):
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def recorder(held=None):
    return CallReader(Recording(held or {}, []), "/f")


def read(*lines, held=None):
    reader = recorder(held)
    for line in lines:
        reader.take(f"7 {line}\n")
    return reader.recording.operations


def opened(name, flags, descriptor=3):
    return f'openat(AT_FDCWD<{hexed("/")}>, "{hexed(name)}", {flags}, 0600) = {descriptor}<{hexed(name)}>'


def test_calls_become_operations_on_the_files_of_the_folder():
    note = line_of(Note(True, "state", 7))
    assert read(
        f'mkdir("{hexed("/f/s")}", 0777) = 0',
        opened("/f/s/a", "O_WRONLY|O_CREAT|O_APPEND"),
        f'write(3<{hexed("/f/s/a")}>, "{hexed("one")}", 3) = 3',
        f'write(3<{hexed("/f/s/a")}>, "{hexed("two")}", 3) = 2',
        f"fsync(3<{hexed('/f/s/a')}>) = 0",
        f'pwrite64(3<{hexed("/f/s/a")}>, "{hexed("x")}", 1, 9) = 1',
        f"ftruncate(3<{hexed('/f/s/a')}>, 4) = 0",
        f"close(3<{hexed('/f/s/a')}>) = 0",
        f'rename("{hexed("/f/s/a")}", "{hexed("/f/s/b")}") = 0',
        opened("/f", "O_RDONLY|O_DIRECTORY"),
        f"fsync(3<{hexed('/f')}>) = 0",
        f'write(1<pipe:[1]>, "{hexed(note.decode())}", {len(note)}) = {len(note)}',
        f'unlink("{hexed("/f/s/b")}") = 0',
    ) == [
        MakeFolder("s"),
        Create("s/a", 0),
        Change(0, 0, b"one"),
        Change(0, 3, b"tw"),
        SyncFile(0),
        Change(0, 9, b"x"),
        Cut(0, 4),
        Rename("s/a", "s/b"),
        SyncFolder("."),
        Note(True, "state", 7),
        Remove("s/b"),
    ]


def test_a_known_file_is_emptied_written_in_place_and_appended_to():
    assert read(
        opened("/f/a", "O_RDWR"),
        f'write(3<{hexed("/f/a")}>, "{hexed("x")}", 1) = 1',
        f"lseek(3<{hexed('/f/a')}>, 2, SEEK_SET) = 2",
        f'write(3<{hexed("/f/a")}>, "{hexed("y")}", 1) = 1',
        opened("/f/a", "O_WRONLY|O_APPEND", 4),
        f'write(4<{hexed("/f/a")}>, "{hexed("z")}", 1) = 1',
        opened("/f/a", "O_WRONLY|O_CREAT|O_TRUNC", 5),
        held={"a": b"abcd"},
    ) == [Change(0, 0, b"x"), Change(0, 2, b"y"), Change(0, 4, b"z"), Cut(0, 0)]


def test_what_failed_and_what_is_elsewhere_is_left_out():
    assert (
        read(
            f'openat(AT_FDCWD<{hexed("/")}>, "{hexed("/f/a")}", O_RDONLY) = -1 ENOENT (No such file or directory)',
            opened("/other/a", "O_WRONLY|O_CREAT"),
            f'write(3<{hexed("/other/a")}>, "{hexed("x")}", 1) = 1',
            f"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3<{hexed('/other/a')}>, 0) = 0x7f38b28db000",
            "+++ exited with 0 +++",
        )
        == []
    )


@pytest.mark.parametrize(
    "line",
    [
        f"mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3<{hexed('/f/a')}>, 0) = 0x7f38b28db000",
        f"fallocate(3<{hexed('/f/a')}>, 0, 0, 4096) = 0",
        f"dup(3<{hexed('/f/a')}>) = 4<{hexed('/f/a')}>",
        f'link("{hexed("/f/a")}", "{hexed("/f/b")}") = 0',
        f'rename("{hexed("/f/a")}", "{hexed("/other")}") = 0',
        f'write(3<{hexed("/f/a")}>, "{hexed("x")}"..., 99) = 99',
        f"write(3<{hexed('/f/a')}>,  <unfinished ...>",
    ],
)
def test_a_change_that_is_not_understood_ends_the_recording(line):
    reader = recorder({"a": b""})
    reader.take(f"7 {opened('/f/a', 'O_RDWR')}\n")
    with pytest.raises(RecordingError):
        reader.take(f"7 {line}\n")


def test_notes_travel_as_lines():
    notes = [Note(True, "state", 7), Note(False, "a b", None), Note(True, "c", "x\ny")]
    assert read_notes(b"".join(map(line_of, notes))) == notes
