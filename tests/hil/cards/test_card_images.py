"""Stock images are unpacked as they are downloaded; what is cut off or damaged is refused and leaves nothing."""

import gzip
import lzma
import subprocess
import zipfile

import pytest

from flightsw.errors import ConfigError
from hil.cards.images import sha256_of, unpack
from hil.sim.streams import Streams

CONTENT = Streams(1).random("image").randbytes(3 << 20) + bytes(5 << 20) + b"end"


def packed(kind, path, need_tool):
    if kind == "plain":
        path.write_bytes(CONTENT)
    elif kind == "xz":
        path.write_bytes(lzma.compress(CONTENT, preset=0))
    elif kind == "gz":
        path.write_bytes(gzip.compress(CONTENT, 1))
    else:
        done = subprocess.run([need_tool("zstd"), "-1", "-c"], input=CONTENT, capture_output=True, check=True)
        path.write_bytes(done.stdout)
    return path


@pytest.fixture(params=["plain", "xz", "gz", "zst"])
def image(request, tmp_path, need_tool):
    return packed(request.param, tmp_path / "image", need_tool)


def test_an_image_is_unpacked_whatever_its_name(image, tmp_path):
    target = tmp_path / "card.img"
    assert unpack(image, target) == len(CONTENT)
    assert target.read_bytes() == CONTENT


def test_zeros_become_holes(image, tmp_path):
    target = tmp_path / "card.img"
    unpack(image, target)
    assert target.stat().st_blocks * 512 < len(CONTENT) - (4 << 20)


def test_an_image_that_ends_in_zeros_keeps_its_size(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"begin" + bytes(5 << 20))
    assert unpack(image, tmp_path / "card.img") == image.stat().st_size
    assert (tmp_path / "card.img").read_bytes() == image.read_bytes()


def test_a_card_is_for_its_owner_alone_as_it_holds_keys(image, tmp_path):
    unpack(image, tmp_path / "card.img")
    assert (tmp_path / "card.img").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["xz", "gz", "zst"])
def test_an_image_that_is_cut_off_is_refused_and_leaves_nothing(kind, tmp_path, need_tool):
    image = packed(kind, tmp_path / "image", need_tool)
    image.write_bytes(image.read_bytes()[:-2000])
    with pytest.raises(ConfigError, match=r"image: (ends before its packing does: cut off|its packing is damaged: )"):
        unpack(image, tmp_path / "card.img")
    assert not (tmp_path / "card.img").exists()


@pytest.mark.parametrize("kind", ["xz", "gz", "zst"])
def test_an_image_that_is_damaged_is_refused_and_leaves_nothing(kind, tmp_path, need_tool):
    image = packed(kind, tmp_path / "image", need_tool)
    data = bytearray(image.read_bytes())
    for at in range(2000, 3000):
        data[at] ^= 0x5A
    image.write_bytes(data)
    with pytest.raises(ConfigError, match="its packing is damaged: "):
        unpack(image, tmp_path / "card.img")
    assert not (tmp_path / "card.img").exists()


def test_a_zip_file_says_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "image.zip", "w") as archive:
        archive.writestr("card.img", "x")
    with pytest.raises(ConfigError, match="unzip it first"):
        unpack(tmp_path / "image.zip", tmp_path / "card.img")


def test_without_zstd_it_says_what_to_install(tmp_path, need_tool, monkeypatch):
    image = packed("zst", tmp_path / "image", need_tool)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="expected the program zstd to be installed"):
        unpack(image, tmp_path / "card.img")


def test_nothing_is_overwritten(image, tmp_path):
    (tmp_path / "card.img").write_text("mine")
    with pytest.raises(ConfigError, match="is there already, expected a new file"):
        unpack(image, tmp_path / "card.img")
    assert (tmp_path / "card.img").read_text() == "mine"


def test_an_empty_or_missing_image_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is empty"):
        unpack(tmp_path / "empty", tmp_path / "card.img")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        unpack(tmp_path / "none", tmp_path / "card.img")
    assert not (tmp_path / "card.img").exists()


def test_a_checksum_is_that_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
