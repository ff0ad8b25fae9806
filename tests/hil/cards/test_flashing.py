"""Writing on a disk: loop devices hold what was written, and a disk that lies, fails or is torn away is named."""

import errno
import os
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flightsw.errors import BoardError, ConfigError
from hil.cards.devices import check_target, look_at
from hil.cards.flashing import BLOCK_BYTES, DeviceTarget, flash, opened
from hil.cards.images import sha256_of
from hil.cli import Group
from hil.commands.board_prepare import _flash
from hil.sim.streams import Streams

IMAGE_BYTES = 2 * BLOCK_BYTES + 1_234 * 512


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "card.img"
    path.write_bytes(Streams(3).random("image").randbytes(IMAGE_BYTES))
    return path


# -- on loop devices


@pytest.fixture
def mount(tmp_path, need_tool):
    """Mounts a device that it formats before."""
    places = []

    def run(device):
        subprocess.run([need_tool("mkfs.ext4"), "-q", "-F", device], check=True, capture_output=True)
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        subprocess.run([need_tool("mount"), device, place], check=True)
        places.append(place)
        return place

    yield run
    for place in places:
        subprocess.run(["umount", place], check=True)


def test_a_disk_holds_what_was_written_and_the_rest_is_untouched(image, make_loop):
    device = make_loop(IMAGE_BYTES + (1 << 20))
    steps = []
    with opened(device) as target:
        digest = flash(image, target, "disk", lambda *step: steps.append(step))
    assert digest == sha256_of(image)
    whole = device.read_bytes()
    assert whole[:IMAGE_BYTES] == image.read_bytes()
    assert whole[IMAGE_BYTES:] == bytes(1 << 20)
    assert steps[-1] == ("verify", IMAGE_BYTES, IMAGE_BYTES)
    assert ("write", IMAGE_BYTES, IMAGE_BYTES) in steps


def test_a_mounted_disk_is_refused_twice_by_what_proc_says_and_by_the_kernel(make_loop, mount):
    device = make_loop(16 << 20)
    mount(device)
    with pytest.raises(ConfigError, match="is mounted at"):
        check_target(look_at(device), 0, may_be_fixed=True)
    with pytest.raises(ConfigError, match="cannot be opened for writing: Device or resource busy"):
        DeviceTarget(device)


def test_a_disk_with_a_mounted_partition_is_refused(make_loop, mount, need_tool):
    device = make_loop(32 << 20, table="label: dos\nstart=2048,size=16384,type=83\n")
    part = Path(f"{device}p1")
    done = subprocess.run([need_tool("partx"), "--add", device], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no partitions of loop devices here: {done.stderr.strip()}")
    mount(part)
    with pytest.raises(ConfigError, match=f"its partition {part.name} is mounted at"):
        check_target(look_at(device), 0, may_be_fixed=True)
    with pytest.raises(ConfigError, match="busy"):
        DeviceTarget(device)
    with pytest.raises(ConfigError, match="is a partition"):
        check_target(look_at(part), 0, may_be_fixed=True)


def test_a_disk_that_another_program_has_is_refused(make_loop):
    device = make_loop(1 << 20)
    with opened(device), pytest.raises(ConfigError, match="busy"):
        DeviceTarget(device)
    DeviceTarget(device).close()


def test_a_read_only_disk_is_refused(make_loop):
    device = make_loop(1 << 20, "--read-only")
    with pytest.raises(ConfigError, match="is read-only"):
        check_target(look_at(device), 0, may_be_fixed=True)


def test_a_disk_that_turns_out_to_be_read_only_is_named(image, make_loop):
    device = make_loop(IMAGE_BYTES, "--read-only")
    with pytest.raises((ConfigError, BoardError), match=f"{device}: "), opened(device) as target:
        flash(image, target, str(device))
    assert device.read_bytes() == bytes(IMAGE_BYTES)


def test_a_disk_that_is_too_small_or_built_in_is_refused(make_loop):
    disk = look_at(make_loop(1 << 20))
    assert disk.size_bytes == 1 << 20
    with pytest.raises(ConfigError, match="has 1048576 bytes, expected at least 1048577"):
        check_target(disk, (1 << 20) + 1, may_be_fixed=True)
    with pytest.raises(ConfigError, match="is built in"):
        check_target(disk, 1 << 20, may_be_fixed=False)


def test_a_user_who_may_not_write_is_told_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied \(as root, or as a user of the group disk\)"):
        DeviceTarget(tmp_path / "sda")


# -- on disks that fail


class Fake:
    """A disk in memory.

    Args:
        on_write: called with the offset before each write; what it raises ends the write.
    """

    def __init__(self, on_write=lambda _: None):
        self.data = bytearray(b"\xaa" * (IMAGE_BYTES + 512))
        self.on_write = on_write
        self.settled = 0

    def write_at(self, offset_bytes, data):
        self.on_write(offset_bytes)
        self.data[offset_bytes : offset_bytes + len(data)] = data

    def read_at(self, offset_bytes, size_bytes):
        return bytes(self.data[offset_bytes : offset_bytes + size_bytes])

    def settle(self):
        self.settled += 1


class Forgetful(Fake):
    """A disk that claims more than it has: what lies behind its true end comes back as what was written last."""

    def write_at(self, offset_bytes, data):
        super().write_at(offset_bytes % BLOCK_BYTES, data)

    def read_at(self, offset_bytes, size_bytes):
        return super().read_at(offset_bytes % BLOCK_BYTES, size_bytes)


class OneBit(Fake):
    """A disk with one bit that does not hold."""

    bit_at = BLOCK_BYTES + 77

    def settle(self):
        super().settle()
        self.data[self.bit_at] ^= 4 if self.settled == (1 if self.bit_at else 2) else 0


class FirstBit(OneBit):
    """The same, in the first block."""

    bit_at = 0


@pytest.mark.parametrize(("disk", "at"), [(Forgetful, BLOCK_BYTES), (OneBit, BLOCK_BYTES), (FirstBit, 0)])
def test_a_disk_that_does_not_hold_what_was_written_is_found_out(image, disk, at):
    said = f"does not hold what was written, in the {BLOCK_BYTES} bytes from {at} on: it is not usable: take another"
    with pytest.raises(BoardError, match=said):
        flash(image, disk(), "disk")


def test_a_disk_that_does_not_hold_what_was_written_has_no_partitions(image):
    disk = OneBit()
    with pytest.raises(BoardError, match="not usable"):
        flash(image, disk, "disk")
    assert disk.data[:BLOCK_BYTES] == bytes(BLOCK_BYTES)


@pytest.mark.parametrize("offset_bytes", [0, BLOCK_BYTES, 2 * BLOCK_BYTES])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error: it is not usable now"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device: it is not usable now"),
        (KeyboardInterrupt(), "interrupted: it is not usable now"),
    ],
)
def test_a_write_that_ends_early_says_that_the_disk_is_not_usable(image, offset_bytes, error, said):
    def fail(at):
        if at == offset_bytes:
            raise error

    disk = Fake(fail)
    with pytest.raises(BoardError, match=said):
        flash(image, disk, "disk")
    if offset_bytes:
        assert disk.data[:BLOCK_BYTES] == bytes(BLOCK_BYTES)  # no partition table: it boots nothing


def test_the_partition_table_comes_last_when_all_else_is_on_the_disk(image):
    order = []
    disk = Fake(order.append)
    flash(image, disk, "disk")
    assert order == [0, BLOCK_BYTES, 2 * BLOCK_BYTES, 0]
    assert disk.settled == 2


# -- as the command does it


@pytest.fixture
def asked(image, make_loop, monkeypatch):
    """Flashes a loop device as the command does, with an answer."""
    device = make_loop(IMAGE_BYTES)

    def run(answer, **options):
        group = Group("board")
        group.command("flash")(lambda: _flash(image, device, IMAGE_BYTES, **({"is_agreed": False} | options)))
        done = CliRunner().invoke(group, ["flash"], input=answer)
        return done.exit_code, done.output, device.read_bytes()

    return run


def test_it_shows_the_disk_and_asks(asked, image):
    code, said, content = asked("y\n", may_be_fixed=True)
    assert code == 0, said
    assert "no model, serial unknown, 9.0 MB, built in" in said
    assert "all that is on it is lost" in said
    assert f"SHA-256 {sha256_of(image)}" in said
    assert content == image.read_bytes()


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_written(asked, answer):
    code, said, content = asked(answer, may_be_fixed=True)
    assert code == 2
    assert "nothing was written" in said
    assert content == bytes(IMAGE_BYTES)


def test_a_disk_that_is_changed_for_another_while_a_person_reads_is_refused(asked, tmp_path, monkeypatch):
    def change(question):
        device = question.removeprefix("write on ").removesuffix("?")
        other = tmp_path / "other"
        other.write_bytes(bytes(IMAGE_BYTES))
        subprocess.run(["losetup", "--detach", device], check=True)
        subprocess.run(["losetup", device, other], check=True)
        return True

    monkeypatch.setattr(click, "confirm", change)
    code, said, content = asked("", may_be_fixed=True)
    assert code == 2
    assert "is another disk than the one that was shown; nothing was written" in said
    assert content == bytes(IMAGE_BYTES)


def test_it_does_not_ask_for_a_disk_that_it_refuses(asked):
    code, said, content = asked("y\n", may_be_fixed=False)
    assert code == 2
    assert "is built in" in said
    assert content == bytes(IMAGE_BYTES)


def test_with_yes_it_does_not_ask(asked, image):
    code, said, content = asked("", may_be_fixed=True, is_agreed=True)
    assert code == 0, said
    assert content == image.read_bytes()
