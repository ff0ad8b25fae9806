"""Which disks must not be written on: each reason, on laid-out sysfs and procfs, and this machine's own disk."""

import os
from pathlib import Path

import pytest

from flightsw.errors import ConfigError
from hil.cards.devices import check_target, disk_of, look_at

CARD_BYTES = 32_000_000_000


@pytest.fixture
def machine(tmp_path):
    """A machine with a card in a USB reader: sda with two partitions; returns a function that sets a file."""
    disk = tmp_path / "sys/devices/pci0000:00/usb1/1-2/host0/block/sda"
    files = {
        "dev": "8:0",
        "size": str(CARD_BYTES // 512),
        "removable": "1",
        "ro": "0",
        "device/vendor": "Generic ",
        "device/model": "SD/MMC",
        "device/serial": "000123",
        "diskseq": "7",
        "sda1/dev": "8:1",
        "sda1/partition": "1",
        "sda2/dev": "8:2",
        "sda2/partition": "2",
    }

    def put(name, text):
        path = (tmp_path if name.startswith("proc/") else disk) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    for name, text in files.items():
        put(name, text)
    for number, name in (("8:0", ""), ("8:1", "sda1"), ("8:2", "sda2")):
        link = tmp_path / "sys/dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(disk / name)
    put("proc/self/mountinfo", "22 1 259:2 / / rw,relatime - ext4 /dev/nvme0n1p2 rw")
    put("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p3 partition 8 0 -2")
    return put


@pytest.fixture
def look(tmp_path, machine):
    return lambda minor=0: disk_of(Path("/dev/sda"), 8, minor, tmp_path)


def refused(disk, said, wanted_bytes=CARD_BYTES, *, may_be_fixed=False):
    with pytest.raises(ConfigError, match=f"/dev/sda: {said}"):
        check_target(disk, wanted_bytes, may_be_fixed=may_be_fixed)


def test_a_card_that_nobody_uses_is_taken_and_named(look):
    disk = look()
    check_target(disk, CARD_BYTES, may_be_fixed=False)
    assert disk.sequence == "7"
    assert disk.line() == "/dev/sda: Generic SD/MMC, serial 000123, 32.0 GB, removable"


@pytest.mark.parametrize(
    ("mounted", "said"),
    [
        ("30 22 8:0 / /mnt rw - vfat /dev/sda rw", "is mounted at /mnt"),
        ("30 22 8:1 / /media/lab/bootfs rw - vfat /dev/sda1 rw", "its partition sda1 is mounted at /media/lab/bootfs"),
        ("30 22 8:2 / / rw - ext4 /dev/sda2 rw", "its partition sda2 is the running system, mounted at /"),
        ("30 22 8:1 / /boot/firmware rw - vfat /dev/sda1 rw", "its partition sda1 is the running system"),
        ("30 22 0:31 /@ / rw - btrfs /dev/sda2 rw", "its partition sda2 is the running system, mounted at /"),
    ],
)
def test_a_disk_that_is_mounted_is_refused_also_by_a_partition(look, machine, mounted, said):
    machine("proc/self/mountinfo", "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n" + mounted)
    refused(look(), said)


def test_a_mount_that_force_fixed_does_not_excuse(look, machine):
    machine("proc/self/mountinfo", "30 22 8:2 / / rw - ext4 /dev/sda2 rw")
    refused(look(), "its partition sda2 is the running system", may_be_fixed=True)


def test_a_disk_that_is_swapped_on_is_refused(look, machine):
    machine("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 8 0 -2")
    refused(look(), "its partition sda2 is swapped on")


def test_a_disk_of_a_volume_group_or_an_array_is_refused(look, machine):
    machine("sda2/holders/dm-0", "")
    refused(look(), "its partition sda2 is in use by dm-0")


def test_a_partition_is_no_disk(look):
    refused(look(1), "is a partition, expected the whole disk")


def test_a_locked_card_is_refused(look, machine):
    machine("ro", "1")
    refused(look(), "is read-only")


def test_a_disk_that_is_too_small_is_refused(look):
    refused(look(), f"has {CARD_BYTES} bytes, expected at least {CARD_BYTES + 1}", CARD_BYTES + 1)


def test_a_disk_that_is_built_in_is_refused_unless_it_is_meant(tmp_path, machine):
    disk = tmp_path / "sys/devices/pci0000:00/ata1/block/sdb"
    (disk / "device").mkdir(parents=True)
    (disk / "removable").write_text("0\n")
    (disk / "size").write_text("1000\n")
    (tmp_path / "sys/dev/block/8:16").symlink_to(disk)
    found = disk_of(Path("/dev/sda"), 8, 16, tmp_path)
    refused(found, "is built in", 1000)
    check_target(found, 1000, may_be_fixed=True)


@pytest.mark.parametrize(("kind", "is_removable"), [("SD", True), ("MMC", False)])
def test_a_card_of_an_mmc_host_is_removable_and_what_is_soldered_on_is_not(tmp_path, machine, kind, is_removable):
    disk = tmp_path / "sys/devices/pci0000:00/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0"
    (disk / "device").mkdir(parents=True)
    (disk / "removable").write_text("0\n")
    (disk / "device/type").write_text(f"{kind}\n")
    (disk / "device/name").write_text("SU32G\n")
    (tmp_path / "sys/dev/block/179:0").symlink_to(disk)
    found = disk_of(Path("/dev/mmcblk0"), 179, 0, tmp_path)
    assert found.is_removable is is_removable
    assert found.model == "SU32G"


def test_sysfs_without_files_is_a_disk_of_no_size(tmp_path):
    disk = tmp_path / "sys/devices/x/sda"
    disk.mkdir(parents=True)
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/8:0").symlink_to(disk)
    refused(disk_of(Path("/dev/sda"), 8, 0, tmp_path), "has 0 bytes", 1)


@pytest.mark.parametrize(("device", "said"), [("/dev/none", "No such file"), ("/dev/null", "no block device")])
def test_what_is_no_disk_is_refused(device, said):
    with pytest.raises(ConfigError, match=said):
        look_at(Path(device))


def test_the_disk_of_this_machine_is_refused():
    number = os.stat("/").st_dev  # noqa: PTH116 - a device number
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not node.exists():
        pytest.skip("the root of this machine is on no disk")
    disk = disk_of(Path("/dev/root"), os.major(number), os.minor(number))
    with pytest.raises(ConfigError, match=r"running system|is a partition"):
        check_target(disk, 0, may_be_fixed=True)
