"""The FAT32 file system in Python is read by mtools and found clean by fsck, whatever is done to it."""

import io
import struct
import subprocess

import pytest

from flightsw.errors import ConfigError
from hil.cards.fat import FatVolume
from hil.cards.partitions import boot_partition, partitions
from hil.sim.streams import Streams


@pytest.fixture
def card(make_card):
    return make_card()


def opened(card, file):
    size_bytes = card.path.stat().st_size
    boot = boot_partition(partitions(file, "card", size_bytes), "card")
    return FatVolume(file, "card", boot.start_bytes, boot.size_bytes)


def test_what_mtools_wrote_is_read(card, tmp_path):
    card.put("A Long Name of a file.text", b"long", tmp_path / "scratch")
    card.put("kernel_2712.img", bytes(range(256)) * 20, tmp_path / "scratch")
    with card.path.open("rb") as file:
        volume = opened(card, file)
        assert volume.read("a long name of a FILE.text") == b"long"
        assert volume.read("kernel_2712.img") == bytes(range(256)) * 20
        assert "kernel8.img" in volume.names()
        assert volume.is_folder("overlays")
        assert not volume.exists("overlays/none")


def test_what_is_written_is_read_by_mtools_and_fsck_finds_nothing(card, tmp_path):
    names = [f"numpy-2.{n}.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl" for n in range(60)]
    names += ["meta-data", "UPPER", "lower.txt", "no suffix at all", "a.b.c.d", "ünïcode ☀.md", "x" * 255, "config.txt"]
    draw = Streams(5).random("files")
    contents = {name: draw.randbytes(draw.choice((0, 1, 511, 512, 513, 5000))) for name in names}
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        for name, data in contents.items():
            volume.write(f"flatrack/wheels/{name}", data)
        volume.sync()
    assert card.check(tmp_path / "scratch") == ""
    assert card.names("flatrack/wheels") == sorted(names)
    for name, data in contents.items():
        assert card.read(f"flatrack/wheels/{name}") == data


def test_replacing_and_removing_at_random_leaves_what_a_dictionary_holds(card, tmp_path):
    draw = Streams(11).random("files")
    model = {}
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        free_bytes = volume.free_bytes()
        for _ in range(400):
            name = f"d{draw.randrange(3)}/some longer name {draw.randrange(12)}"
            if draw.random() < 0.3:
                volume.remove(name)
                model.pop(name, None)
            else:
                model[name] = draw.randbytes(draw.randrange(4000))
                volume.write(name, model[name])
        volume.sync()
        assert {name: volume.read(name) for name in model} == model
    assert card.check(tmp_path / "scratch") == ""
    assert sorted(f"d{n}/{name}" for n in range(3) for name in card.names(f"d{n}")) == sorted(model)
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        for n in range(3):
            volume.remove(f"d{n}")
        volume.sync()
        assert volume.free_bytes() >= free_bytes - 512  # the root folder has grown, by one cluster
    assert card.check(tmp_path / "scratch") == ""


def test_a_file_that_does_not_fit_is_refused_and_the_room_stays(card):
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        free_bytes = volume.free_bytes()
        with pytest.raises(ConfigError, match=r"big takes \d+ bytes, expected at most the \d+ bytes that are free"):
            volume.write("big", bytes(free_bytes + 1))
        assert volume.free_bytes() == free_bytes
        volume.write("fits", bytes(free_bytes))
        assert volume.free_bytes() == 0


@pytest.mark.parametrize("name", ["a:b", "a\\b", "trailing.", " x", "x" * 256, 'quo"te'])
def test_a_name_that_fat_cannot_hold_is_refused(card, name):
    with card.path.open("r+b") as file, pytest.raises(ConfigError, match="no name that a FAT file system can hold"):
        opened(card, file).write(name, b"")


def test_a_folder_is_no_file_and_a_file_no_folder(card):
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        with pytest.raises(ConfigError, match="is a folder, expected a file"):
            volume.write("overlays", b"")
        with pytest.raises(ConfigError, match="is a file, expected a folder"):
            volume.write("config.txt/x", b"")
        with pytest.raises(ConfigError, match="no such file"):
            volume.read("overlays")


def test_a_chain_in_a_circle_is_named_as_damage(card):
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        volume.write("circle", bytes(2000))
        first = next(entry.cluster for entry in volume._entries(volume._root) if entry.name == "circle")
        volume._table[first + 1] = first
        with pytest.raises(ConfigError, match="damaged: the chain from cluster"):
            volume.read("circle")


@pytest.mark.parametrize(
    ("offset_bytes", "data", "said"),
    [
        (510, b"\0\0", "no boot sector"),
        (17, b"\0\2", "FAT12, FAT16 or no FAT"),
        (13, b"\3", "damaged: clusters of 3 sectors"),
        (40, b"\x81\0", "not kept alike"),
        (32, b"\xff\xff\xff\xff", "in a partition of"),
        (36, b"\1\0\0\0", "damaged"),
    ],
)
def test_a_boot_sector_that_is_wrong_is_refused(card, offset_bytes, data, said):
    with card.path.open("r+b") as file:
        file.seek(card.start_bytes + offset_bytes)
        file.write(data)
        file.flush()
        with pytest.raises(ConfigError, match=said):
            FatVolume(file, "card", card.start_bytes, 40 << 20)


def test_any_damage_of_the_tables_is_a_refusal_and_never_another_error(card):
    image = card.path.read_bytes()
    draw = Streams(3).random("files")
    for _ in range(60):
        damaged = bytearray(image)
        for _ in range(draw.randrange(1, 400)):
            at = card.start_bytes + draw.choice((draw.randrange(512), draw.randrange(720 << 10)))
            damaged[at] = draw.randrange(256)
        file = io.BytesIO(damaged)
        try:
            volume = FatVolume(file, "card", card.start_bytes, 40 << 20)
            for name in volume.names():
                if not volume.is_folder(name):
                    volume.read(name)
            volume.write("flatrack/new", bytes(10_000))
            volume.sync()
        except ConfigError:
            pass


def test_fsinfo_counts_what_is_free(card):
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        volume.write("more", bytes(100_000))
        volume.sync()
        file.seek(card.start_bytes + 512 + 488)
        free_count, hint = struct.unpack("<II", file.read(8))
        assert free_count * 512 == volume.free_bytes()
        assert volume._is_free(hint)


def test_mtools_can_go_on_where_we_ended(card, tmp_path):
    with card.path.open("r+b") as file:
        volume = opened(card, file)
        volume.write("ours", b"1" * 5000)
        volume.sync()
    card.put("theirs", b"2" * 5000, tmp_path / "scratch")
    subprocess.run(["mdel", "-i", card.drive, "::ours"], check=True)
    assert card.check(tmp_path / "scratch") == ""
    assert card.read("theirs") == b"2" * 5000
