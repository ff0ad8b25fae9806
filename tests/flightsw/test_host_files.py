"""The promises of the Disk port, the same suite on the simulated disk and on real files; and what only real files can
show: the order of system calls, what lies there after a death, and who may have the folder."""

import errno
import os
import random  # noqa: TID251 - the seed is in the test
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.host import files
from flightsw.host.files import FileDisk
from flightsw.storage.log import RecordLog
from hil.sim.disk import SimulatedDisk

CAPACITY_BYTES = 10_000


@pytest.fixture(params=["simulated", "files"])
def make_disk(request, tmp_path):
    """Gives fresh disks of a capacity."""
    made = []

    def make(capacity_bytes=CAPACITY_BYTES):
        if request.param == "simulated":
            return SimulatedDisk(capacity_bytes, random.Random(1))
        made.append(FileDisk(tmp_path / f"disk-{len(made)}", capacity_bytes))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


# The port, on both


def test_what_is_written_is_read_back(make_disk):
    disk = make_disk()
    disk.append("log", b"one")
    disk.append("log", b"two")
    disk.write("state", b"older")
    disk.write("state", b"new")
    disk.replace("objects/ab/cd", b"a")
    disk.replace("objects/ab/cd", b"bb")
    disk.append("empty", b"")
    assert [disk.read(name) for name in ("log", "state", "objects/ab/cd", "empty")] == [b"onetwo", b"new", b"bb", b""]
    for name in disk.names():
        disk.sync(name)
    assert [disk.read(name) for name in ("log", "state", "objects/ab/cd", "empty")] == [b"onetwo", b"new", b"bb", b""]


def test_appending_goes_on_behind_whatever_is_there(make_disk):
    disk = make_disk()
    disk.replace("log", b"1")
    disk.append("log", b"2")
    disk.write("log", b"34")
    disk.append("log", b"5")
    assert disk.read("log") == b"345"


def test_free_bytes_are_the_capacity_less_all_contents(make_disk):
    disk = make_disk()
    disk.append("a", bytes(100))
    disk.append("a", bytes(50))
    disk.write("b", bytes(300))
    disk.write("b", bytes(200))
    disk.replace("c/d", bytes(1000))
    disk.replace("c/d", bytes(500))
    assert disk.free_bytes() == CAPACITY_BYTES - 150 - 200 - 500
    disk.remove("b")
    assert disk.free_bytes() == CAPACITY_BYTES - 150 - 500


@pytest.mark.parametrize("action", ["read", "sync"])
def test_an_absent_file_is_a_storage_error_that_names_it(make_disk, action):
    disk = make_disk()
    with pytest.raises(StorageError, match="log: no such file"):
        getattr(disk, action)("log")


def test_removing_is_forgetting_and_an_absent_name_is_no_error(make_disk):
    disk = make_disk()
    disk.replace("slot", b"abc")
    disk.remove("slot")
    disk.remove("slot")
    assert not disk.exists("slot")
    assert disk.names() == []
    disk.append("slot", b"new")
    assert disk.read("slot") == b"new"


def test_names_are_sorted_and_selected_by_prefix(make_disk):
    disk = make_disk()
    for name in ("log/2", "slot", "log/10", "log/1", "logs"):
        disk.append(name, b"")
    assert disk.names() == ["log/1", "log/10", "log/2", "logs", "slot"]
    assert disk.names("log/1") == ["log/1", "log/10"]
    assert disk.exists("log/2")
    assert not disk.exists("log")


def test_a_full_disk_names_the_sizes_and_keeps_what_it_has(make_disk):
    disk = make_disk(1000)
    disk.append("log", bytes(600))
    with pytest.raises(StorageError, match=r"append of 500 bytes to log: 400 of 1000 bytes are free"):
        disk.append("log", bytes(500))
    with pytest.raises(StorageError, match=r"write of 1001 bytes to log: 1000 of 1000 bytes are free"):
        disk.write("log", bytes(1001))
    with pytest.raises(StorageError, match=r"replace of 401 bytes to log: 400 of"):
        disk.replace("log", bytes(401))  # old and new stand side by side until the rename
    assert disk.read("log") == bytes(600)
    disk.write("log", bytes(1000))
    assert disk.free_bytes() == 0


def test_a_record_log_works_on_it(make_disk):
    disk = make_disk()
    log = RecordLog(disk, "jobs/log")
    for number in range(10):
        log.append(b"%d" % number)
    log.sync()
    assert RecordLog(disk, "jobs/log").records() == [b"%d" % number for number in range(10)]
    log.compact([b"only"])
    assert RecordLog(disk, "jobs/log").records() == [b"only"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "write", "sync", "replace", "remove"]),
        st.sampled_from(["a", "b", "c/d", "c/e/f"]),
        st.binary(max_size=400),
    ),
    max_size=30,
)


@given(STEPS)
def test_both_disks_tell_the_same_after_any_history(tmp_path_factory, steps):
    simulated = SimulatedDisk(1000, random.Random(1))
    real = FileDisk(tmp_path_factory.mktemp("disk"), 1000)
    for action, name, data in steps:
        outcomes = []
        for disk in (simulated, real):
            arguments = (name,) if action in ("sync", "remove") else (name, data)
            try:
                outcomes.append(getattr(disk, action)(*arguments))
            except StorageError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert simulated.names() == real.names()
        assert simulated.free_bytes() == real.free_bytes()
    assert [simulated.read(name) for name in simulated.names()] == [real.read(name) for name in real.names()]
    real.close()


# Real files


def test_a_new_start_finds_what_the_last_one_left(tmp_path):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.replace("objects/ab", b"abc")
    disk.append("log", b"12345")
    disk.close()
    again = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    assert again.names() == ["log", "objects/ab"]
    assert again.read("objects/ab") == b"abc"
    assert again.free_bytes() == CAPACITY_BYTES - 8
    again.close()


def test_a_start_makes_durable_what_a_program_that_died_left_in_folders(tmp_path, monkeypatch):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.replace("logs/old", b"x")
    disk.append("logs/new", b"1")  # the program dies before it syncs
    disk.close()
    synced = []
    sync = files._sync
    monkeypatch.setattr(files, "_sync", lambda path: (synced.append(path), sync(path)))
    again = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    again.append("logs/new", b"2")
    again.sync("logs/new")
    again.close()
    assert tmp_path / "disk/logs" in synced, "else a power cut takes the name, and what was synced with it"
    assert tmp_path / "disk" in synced


def test_what_a_death_in_mid_replace_left_is_removed_and_the_old_content_stands(tmp_path, monkeypatch):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.replace("objects/ab", b"old")

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for call in ("fsync", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, call, die)
            with pytest.raises(Killed):
                disk.replace("objects/ab", b"new content")
    disk.close()
    assert [path.name for path in (tmp_path / "disk/objects").iterdir() if path.name != "ab"] != []
    again = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    assert again.names() == ["objects/ab"]
    assert again.read("objects/ab") == b"old"
    assert [path.name for path in (tmp_path / "disk/objects").iterdir()] == ["ab"]
    again.close()


def test_one_program_has_the_folder_until_it_ends_however_it_ends(tmp_path):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    with pytest.raises(StorageError, match=r"disk: another program has this folder$"):
        FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.close()
    disk.close()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from flightsw.host.files import FileDisk\n"
            "disk = FileDisk(Path(sys.argv[1]), 1000); print('here', flush=True); sys.stdin.read()",
            str(tmp_path / "disk"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"here\n"
    with pytest.raises(StorageError, match="another program has this folder"):
        FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    FileDisk(tmp_path / "disk", CAPACITY_BYTES).close()


CALLS = """
import sys
from pathlib import Path
from flightsw.host.files import FileDisk
disk = FileDisk(Path(sys.argv[1]), 1000)
disk.replace("objects/ab", b"content")
disk.append("log", b"one")
disk.sync("log")
disk.append("log", b"two")
disk.sync("log")
disk.remove("objects/ab")
disk.replace("state", b"s")
"""


def test_the_kernel_is_asked_in_the_order_that_survives_a_power_cut(tmp_path, need_tool):
    """As strace sees it: data before the rename, the rename before the folder; a new name's folder once."""
    trace = tmp_path / "trace"
    folder = tmp_path / "disk"
    subprocess.run(
        [
            need_tool("strace"),
            "-f",
            "-y",
            "-o",
            str(trace),
            "-e",
            "trace=write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat",
            sys.executable,
            "-c",
            CALLS,
            str(folder),
        ],
        check=True,
        capture_output=True,
    )
    seen = []
    for line in trace.read_text().splitlines():
        call = line.split(maxsplit=1)[1]
        name = call.split("(")[0]
        if str(folder) not in call:
            continue
        paths = [
            part.split(str(folder), 1)[1].lstrip("/") or "."
            for part in call.replace('"', "\n").replace("<", "\n").replace(">", "\n").splitlines()
            if part.startswith(str(folder))
        ]
        seen.append((name, *paths))
    new = files.TEMPORARY_SUFFIX
    assert seen == [
        ("mkdir", "."),
        ("fsync", "."),
        ("mkdir", "objects"),
        ("fsync", "."),
        ("write", f"objects/ab{new}"),
        ("fsync", f"objects/ab{new}"),
        ("rename", f"objects/ab{new}", "objects/ab"),
        ("fsync", "objects"),
        ("write", "log"),
        ("fsync", "log"),
        ("fsync", "."),
        ("write", "log"),
        ("fsync", "log"),
        ("unlink", "objects/ab"),
        ("write", f"state{new}"),
        ("fsync", f"state{new}"),
        ("rename", f"state{new}", "state"),
        ("fsync", "."),
        ("fsync", "objects"),
    ]


def broken(error_number):
    def fail(*_):
        raise OSError(error_number, os.strerror(error_number))

    return fail


@pytest.mark.parametrize(
    ("call", "error_number"),
    [("write", errno.ENOSPC), ("write", errno.EIO), ("fsync", errno.EIO), ("open", errno.EMFILE)],
)
@pytest.mark.parametrize("action", ["append", "write", "replace", "sync"])
def test_every_error_of_the_system_is_a_storage_error_that_names_the_file(
    tmp_path, monkeypatch, call, error_number, action
):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.replace("log", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, broken(error_number))
        arguments = ("log",) if action == "sync" else ("log", b"new")
        touches = {"append": ("write", "open"), "write": ("write", "open"), "sync": ("fsync", "open")}
        if call in touches.get(action, ("write", "fsync", "open")):
            with pytest.raises(StorageError, match=f"^{action} log: {os.strerror(error_number)}$"):
                getattr(disk, action)(*arguments)
        else:
            getattr(disk, action)(*arguments)
    if action in ("append", "replace") and call == "write":
        assert disk.read("log") == b"old"
        assert disk.free_bytes() == CAPACITY_BYTES - 3
    assert disk.names() == ["log"]
    disk.close()


def test_an_append_that_the_disk_took_in_part_is_cut_off_again(tmp_path, monkeypatch):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.append("log", b"whole")
    real_write = os.write
    taken = []

    def write_some(descriptor, data):
        if taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken.append(True)
        return real_write(descriptor, data[:3])

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", write_some)
        with pytest.raises(StorageError, match="No space left on device"):
            disk.append("log", b"partial")
    assert disk.read("log") == b"whole"
    disk.append("log", b"!")
    assert disk.read("log") == b"whole!"
    disk.close()


def test_free_bytes_are_no_more_than_the_file_system_has(tmp_path, monkeypatch):
    disk = FileDisk(tmp_path / "disk", 1 << 40)
    real = os.statvfs(tmp_path)
    assert disk.free_bytes() <= real.f_blocks * real.f_frsize
    monkeypatch.setattr(files.os, "statvfs", lambda _: os.statvfs_result([4096, 4096, 100, 50, 7, 0, 0, 0, 0, 255]))
    assert disk.free_bytes() == 7 * 4096
    disk.close()


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "a\0b", ".lock", "x.replacing~"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    for action in (disk.append, disk.write, disk.replace):
        with pytest.raises(StorageError, match="not a name of a file here"):
            action(name, b"x")
    with pytest.raises(StorageError, match="no such file"):
        disk.read(name)
    disk.close()


def test_a_folder_that_cannot_be_used_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"open .*file: "):
        FileDisk(tmp_path / "file", CAPACITY_BYTES)
    with pytest.raises(StorageError, match=r"open .*below: "):
        FileDisk(tmp_path / "file" / "below", CAPACITY_BYTES)


def test_no_descriptor_stays_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    disk = FileDisk(tmp_path / "disk", CAPACITY_BYTES)
    disk.replace("a", b"1")
    disk.append("b/c", b"2")
    disk.sync("b/c")
    disk.close()
    with pytest.raises(StorageError):
        FileDisk(tmp_path / "disk" / "a", CAPACITY_BYTES)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
