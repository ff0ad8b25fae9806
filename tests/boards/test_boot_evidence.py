"""Why a node has started: each row of the table of evidence, and what damaged evidence leads to."""

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from boards.support import trees
from boards.support.boot_evidence import Verdict, judge
from boards.support.boot_note import BootNote, load_note, note_of_start, store_note
from boards.support.panics import RECORDS_MAX
from boards.support.tools import ToolResult
from flightsw.errors import StorageError
from flightsw.ports import ResetCause

BOOT_ID = "/proc/sys/kernel/random/boot_id"
HANG = 'Current thread 0x00007f5a (most recent call first):\n  File "node.py", line 7 in run\n'
TRACE = 'Traceback (most recent call last):\n  File "node.py", line 7, in run\nValueError: bits\n'
PANIC = "Panic#1 Part1\n<6>[   12.1] ok\n<0>[   12.345678] Kernel panic - not syncing: sysrq triggered crash\n<4>..."
SOFTDOG = "Panic#2 Part1\n<2>[   99.1] softdog: Initiating panic\n<0>[   99.2] Kernel panic - not syncing: {}\n"


class Machine:
    """A laid tree that can be restarted and given traces of its end."""

    def __init__(self, folder: Path, tree: str = "qemu-virt") -> None:
        self.laid = trees.lay(tree, folder / "board")
        self.note: BootNote | None = None

    def write(self, name: str, text: str) -> None:
        path = self.laid.root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self) -> None:
        self.note = note_of_start(self.laid.root)

    def end(self, cause: ResetCause) -> None:
        assert self.note is not None
        self.note = self.note.ended(cause)

    def restart(self) -> None:
        self.write(BOOT_ID, "another\n")

    def judge(self, words: str = "") -> Verdict:
        return judge(self.laid.root, self.note, self.laid.run, words=words)

    def cause(self, words: str = "") -> ResetCause:
        return self.judge(words).cause


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.start()
    return machine


def test_a_first_start_is_a_power_on_whatever_lies_about(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("/sys/fs/pstore/dmesg-ramoops-0", PANIC)
    assert machine.cause(TRACE) is ResetCause.POWER_ON


@pytest.mark.parametrize("cause", ResetCause)
def test_an_orderly_end_on_the_same_kernel_says_why(machine: Machine, cause: ResetCause) -> None:
    machine.end(cause)
    assert machine.judge() == Verdict(cause, f"the last start ended in order with {cause.name}")


def test_a_program_that_ends_without_a_word_was_killed(machine: Machine) -> None:
    assert machine.judge() == Verdict(ResetCause.KILLED, "the program ended without a word")


def test_last_words_tell_a_hang_from_an_exception(machine: Machine) -> None:
    assert machine.judge(HANG) == Verdict(ResetCause.WATCHDOG, "last words: the stack of what hung")
    assert machine.judge(TRACE) == Verdict(ResetCause.EXCEPTION, "last words: 'ValueError: bits'")
    assert machine.cause(" \n ") is ResetCause.KILLED


@pytest.mark.parametrize("record", ["/sys/fs/pstore/dmesg-ramoops-0", "/var/lib/systemd/pstore/1732/001/dmesg.txt"])
@pytest.mark.parametrize("is_orderly", [False, True])
def test_a_new_record_of_a_panic_is_a_kernel_panic(machine: Machine, record: str, is_orderly: bool) -> None:
    if is_orderly:
        machine.end(ResetCause.RESET_COMMAND)  # and the kernel panicked on its way down
    machine.restart()
    machine.write(record, PANIC)
    assert machine.judge() == Verdict(ResetCause.KERNEL_PANIC, "pstore: sysrq triggered crash")


@pytest.mark.parametrize("reason", ["Software Watchdog Timer expired", "watchdog pretimeout event"])
def test_a_panic_that_a_watchdog_has_called_is_a_watchdog_reset(machine: Machine, reason: str) -> None:
    machine.restart()
    machine.write("/sys/fs/pstore/dmesg-ramoops-0", SOFTDOG.format(reason))
    assert machine.judge() == Verdict(ResetCause.WATCHDOG, f"pstore: {reason}")


def test_a_record_that_was_there_before_is_of_an_earlier_end(machine: Machine) -> None:
    machine.write("/sys/fs/pstore/dmesg-ramoops-0", PANIC)
    machine.start()
    machine.restart()
    assert machine.cause() is ResetCause.POWER_CYCLE
    machine.write("/sys/fs/pstore/dmesg-ramoops-1", PANIC.replace("12.345678", "13.000001"))
    assert machine.cause() is ResetCause.KERNEL_PANIC


def test_a_record_without_a_panic_says_nothing(machine: Machine) -> None:
    machine.restart()
    machine.write("/sys/fs/pstore/dmesg-ramoops-0", "Oops#1 Part1\n<1>[ 3.1] Unable to handle kernel paging request\n")
    machine.write("/sys/fs/pstore/console-ramoops-0", PANIC)
    assert machine.cause() is ResetCause.POWER_CYCLE


def test_a_watchdog_that_has_reset_the_machine_says_so(machine: Machine) -> None:
    machine.restart()
    machine.write("/sys/class/watchdog/watchdog1/identity", "i6300ESB timer\n")
    machine.write("/sys/class/watchdog/watchdog1/bootstatus", "32\n")
    assert machine.judge() == Verdict(ResetCause.WATCHDOG, "watchdog1 (i6300ESB timer): bootstatus says that it reset")


@pytest.mark.parametrize("cause", [ResetCause.RESET_COMMAND, ResetCause.POWER_CYCLE, ResetCause.BROWN_OUT])
def test_a_commanded_restart_counts_before_the_watchdog_by_which_a_board_reboots(
    machine: Machine, cause: ResetCause
) -> None:
    machine.end(cause)
    machine.restart()
    machine.write("/sys/class/watchdog/watchdog0/bootstatus", "32\n")
    assert machine.cause() is cause


def test_a_machine_that_restarts_after_an_exception_has_lost_its_power_or_was_reset(machine: Machine) -> None:
    machine.end(ResetCause.EXCEPTION)
    machine.restart()
    assert machine.cause() is ResetCause.POWER_CYCLE
    machine.write("/sys/class/watchdog/watchdog0/bootstatus", "32\n")
    assert machine.cause() is ResetCause.WATCHDOG


def test_a_machine_that_restarts_without_a_trace_was_power_cycled(machine: Machine) -> None:
    machine.restart()
    verdict = machine.judge(HANG)  # words without the same kernel may be of any age
    assert verdict == Verdict(
        ResetCause.POWER_CYCLE, "the machine restarted and left neither panic nor watchdog status"
    )


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("get_rsts=1000", ResetCause.POWER_CYCLE),
        ("get_rsts=20", ResetCause.WATCHDOG),
        ("get_rsts=1020", ResetCause.POWER_CYCLE),
        ("0x75", ResetCause.WATCHDOG),
        ("get_rsts=555", ResetCause.POWER_CYCLE),
        ("error=1", ResetCause.POWER_CYCLE),
        ("what?", ResetCause.POWER_CYCLE),
        ("", ResetCause.POWER_CYCLE),
    ],
)
def test_a_raspberry_pi_says_by_its_reset_status_whether_the_watchdog_has_reset_it(
    tmp_path: Path, status: str, cause: ResetCause
) -> None:
    machine = Machine(tmp_path, "raspberry-pi-5")
    machine.start()
    machine.restart()

    def run(arguments: Sequence[str]) -> ToolResult:
        assert list(arguments) == ["vcgencmd", "get_rsts"]
        return ToolResult(0, status + "\n")

    assert judge(machine.laid.root, machine.note, run).cause is cause


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("LCCPLEXWDT", ResetCause.WATCHDOG),
        ("BCCPLEXWDT", ResetCause.WATCHDOG),
        ("SYS_RESET_N", ResetCause.POWER_CYCLE),
        ("MAINSWRST", ResetCause.POWER_CYCLE),
    ],
)
def test_a_jetson_says_its_reset_reason(tmp_path: Path, reason: str, cause: ResetCause) -> None:
    machine = Machine(tmp_path, "jetson-orin-nano")
    machine.start()
    machine.restart()
    machine.write("/sys/devices/platform/bus@0/c360000.pmc/reset_reason", reason + "\n")
    assert machine.judge() == Verdict(cause, f"Tegra's reset reason: {reason!r}")


def test_a_machine_that_cannot_say_which_boot_it_is_is_judged_by_what_the_program_said(machine: Machine) -> None:
    (machine.laid.root / BOOT_ID[1:]).unlink()
    assert machine.judge() == Verdict(ResetCause.POWER_CYCLE, "boot_id cannot be read")
    assert machine.cause(HANG) is ResetCause.WATCHDOG
    machine.end(ResetCause.RESET_COMMAND)
    assert machine.cause(HANG) is ResetCause.RESET_COMMAND


def test_records_that_may_not_be_read_are_no_evidence(machine: Machine) -> None:
    machine.restart()
    machine.write("/sys/fs/pstore/dmesg-ramoops-0", PANIC)

    def read(path: Path, limit_bytes: int) -> bytes:
        if "pstore" in str(path):
            raise OSError(errno.EACCES, "EACCES")
        return machine.laid.read(path, limit_bytes)

    assert judge(machine.laid.root, machine.note, read=read).cause is ResetCause.POWER_CYCLE


# -- the note


def test_a_note_is_read_back_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    assert load_note(path) is None
    note = BootNote(boot_id="here", panics=("a" * 32,))
    store_note(path, note)
    assert load_note(path) == note
    store_note(path, note.ended(ResetCause.BROWN_OUT))
    ended = load_note(path)
    assert ended is not None
    assert (ended.phase, ended.cause, ended.panics) == ("ended", "BROWN_OUT", note.panics)
    assert [entry.name for entry in tmp_path.iterdir()] == ["boot.json"]


def test_a_note_is_synced_before_it_takes_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boot.json"
    store_note(path, BootNote(boot_id="old"))
    old_inode = path.stat().st_ino
    seen: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").resolve()
        seen.append((target.name, path.read_text()))

    monkeypatch.setattr("boards.support.boot_note.os.fsync", fsync)
    store_note(path, BootNote(boot_id="new"))
    (first, before), (second, after) = seen
    assert first == "boot.json.new"
    assert '"old"' in before
    assert second == tmp_path.name
    assert '"new"' in after
    assert path.stat().st_ino != old_inode, "the name has moved to a file that was whole before"


def test_a_note_that_cannot_be_stored_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="ENOENT"):
        store_note(tmp_path / "absent" / "boot.json", BootNote(boot_id=""))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), words=st.text(max_size=60))
def test_a_damaged_note_never_keeps_a_node_from_starting(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "boot.json"
    path.write_bytes(content)
    note = load_note(path)
    assert note is not None
    verdict = judge(tmp_path, note, words=words)
    assert verdict.cause is not ResetCause.POWER_ON
    assert "\n" not in verdict.detail


NOTE = b'{"boot_id":"5e5c3a52-0d9b-4d7f","phase":"running","cause":"","panics":["0123456789abcdef"]}'


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, len(NOTE) - 1), byte=st.integers(0, 255))
@example(place=NOTE.index(b"5e5c"), byte=0xFF)
def test_a_note_with_one_bad_byte_never_keeps_a_node_from_starting(tmp_path: Path, place: int, byte: int) -> None:
    path = tmp_path / "boot.json"
    path.write_bytes(NOTE[:place] + bytes([byte]) + NOTE[place + 1 :])
    note = load_note(path)
    assert note is not None
    assert judge(tmp_path, note).cause is ResetCause.POWER_CYCLE


def test_the_newest_records_are_looked_at_where_nobody_tidies(machine: Machine) -> None:
    for number in range(RECORDS_MAX):
        machine.write(f"/var/lib/systemd/pstore/{1700 + number}/001/dmesg.txt", PANIC.replace("12.1", f"{number}.1"))
    machine.start()
    machine.restart()
    assert machine.cause() is ResetCause.POWER_CYCLE
    machine.write("/var/lib/systemd/pstore/1900/001/dmesg.txt", PANIC.replace("12.1", "900.1"))
    assert machine.cause() is ResetCause.KERNEL_PANIC


def test_a_note_with_an_unknown_cause_says_nothing(machine: Machine) -> None:
    machine.note = BootNote(boot_id="x", phase="ended", cause="METEORITE")
    assert machine.cause() is ResetCause.POWER_CYCLE
