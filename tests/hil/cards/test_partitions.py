"""Partition tables: the boot partition is found in MBR and GPT, and damage is named."""

import io
import subprocess
import zlib

import pytest

from flightsw.errors import ConfigError
from hil.cards.partitions import Partition, boot_partition, partitions

MARKED = bytes(82) + b"FAT32   " + bytes(420) + b"\x55\xaa"


def table(data):
    return partitions(io.BytesIO(data), "card.img", len(data))


def test_the_boot_partition_of_raspberry_pi_os_is_found(make_card):
    data = make_card().path.read_bytes()
    found = table(data)
    assert [partition.number for partition in found] == [1, 2]
    assert boot_partition(found, "card.img") == Partition(1, 4 << 20, 40 << 20, is_fat=True)


@pytest.fixture
def gpt(tmp_path, need_tool):
    """An image that sfdisk has partitioned with a GPT: a small partition, and the boot partition behind it."""
    path = tmp_path / "gpt.img"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(16 << 20)
    text = "label: gpt\nstart=2048,size=2048,type=L\nstart=8192,size=8192,type=U\n"
    subprocess.run([need_tool("sfdisk"), "-q", path], input=text, text=True, check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(8192 * 512)
        file.write(MARKED)
    return bytearray(path.read_bytes())


def test_the_boot_partition_in_a_gpt_is_found(gpt):
    assert boot_partition(table(gpt), "card.img") == Partition(2, 4 << 20, 4 << 20, is_fat=True)


@pytest.mark.parametrize(
    ("offset_bytes", "said"),
    [(512, "no GPT"), (512 + 30, "checksum of its GPT does not hold"), (1024 + 40, "GPT's entries does not hold")],
)
def test_a_gpt_whose_checksum_does_not_hold_is_refused(gpt, offset_bytes, said):
    gpt[offset_bytes] ^= 1
    with pytest.raises(ConfigError, match=said):
        table(gpt)


def test_a_gpt_of_absurd_entries_is_refused_before_they_are_read(gpt):
    gpt[512 + 80 : 512 + 84] = (1 << 31).to_bytes(4, "little")
    gpt[512 + 16 : 512 + 20] = bytes(4)
    gpt[512 + 16 : 512 + 20] = zlib.crc32(gpt[512 : 512 + 92]).to_bytes(4, "little")
    with pytest.raises(ConfigError, match="a GPT of 2147483648 entries"):
        table(gpt)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no partition table"),
        (bytes(1 << 20), "no partition table"),
        (bytes(446) + b"\x7f" + bytes(63) + b"\x55\xaa", "partition table is damaged"),
    ],
)
def test_what_is_no_image_of_a_disk_is_refused(data, said):
    with pytest.raises(ConfigError, match=rf"card\.img: .*{said}"):
        table(data)


def test_an_image_that_is_cut_off_is_refused(make_card):
    data = make_card().path.read_bytes()
    with pytest.raises(ConfigError, match=r"partition 2 ends at .* cut off"):
        table(data[:-512])


def test_an_image_without_a_fat_partition_is_refused(make_card):
    found = table(make_card().path.read_bytes())
    with pytest.raises(ConfigError, match="none of them FAT32"):
        boot_partition(found[1:], "card.img")
