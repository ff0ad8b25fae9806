"""Scenes are read from the formats that are promised, and a wrong file is told apart; tiles go apart and together."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flightsw.errors import ConfigError
from hil.imagery.scene import Scene, default_scene, load_scene, to_dn, to_reflectance
from hil.imagery.tiles import acquisitions, cut, cut_truth, grid, join_masks

ASSETS = Path(__file__).resolve().parents[2] / "hil" / "assets"


def numbers(height: int = 20, width: int = 30, bands: int = 4) -> np.ndarray:
    return (np.arange(height * width * bands, dtype=np.uint16) * 13 % 9000).reshape(height, width, bands)


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_the_scene_of_the_package_is_the_real_one() -> None:
    scene = default_scene()
    assert scene.dn.shape == (200, 300, 4)
    assert scene.dn.dtype == np.uint16
    assert scene.dn.mean(axis=(0, 1)) == pytest.approx([1285.06, 1151.13, 1342.55, 1568.78], abs=0.01)
    assert "Copernicus Sentinel data" in scene.attribution


def test_the_scene_of_the_package_is_small_and_its_digest_is_documented() -> None:
    data = (ASSETS / "sentinel2-scene.npz").read_bytes()
    assert len(data) <= 450_000
    assert hashlib.sha256(data).hexdigest() in (ASSETS / "SCENE.md").read_text()


def test_an_npz_keeps_its_name_and_attribution(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, dn=numbers(), name="Alps", attribution="somebody")
    scene = load_scene(path)
    assert np.array_equal(scene.dn, numbers())
    assert (scene.name, scene.attribution) == ("Alps", "somebody")


def test_an_npy_of_reflectances_becomes_digital_numbers(tmp_path: Path) -> None:
    path = tmp_path / "s.npy"
    np.save(path, numbers() / 10_000)
    scene = load_scene(path)
    assert np.array_equal(scene.dn, numbers())
    assert (scene.name, scene.attribution) == ("s.npy", "")


def test_a_tiff_with_a_band_a_page_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    pages = [Image.fromarray(numbers()[..., band]) for band in range(4)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert np.array_equal(load_scene(path).dn, numbers())


def test_a_geotiff_with_its_bands_in_one_page_is_read(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, numbers(), photometric="minisblack", planarconfig="contig")
    assert np.array_equal(load_scene(path).dn, numbers())
    tifffile.imwrite(path, np.moveaxis(numbers(), -1, 0), photometric="minisblack", planarconfig="separate")
    assert np.array_equal(load_scene(path).dn, numbers())


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.npz: no such file; expected \.npz or"):
        load_scene(tmp_path / "gone.npz")


@pytest.mark.parametrize("name", ["s.png", "s.jpeg", "scene"])
def test_an_unknown_format_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"expected \.npz or \.npy"):
        load_scene(tmp_path / name)


@pytest.mark.parametrize("name", ["s.npz", "s.npy", "s.tif"])
@pytest.mark.parametrize("content", [b"", b"not a scene at all", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_a_broken_file_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_scene(tmp_path / name)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="not an npy file of plain numbers"):
        load_scene(path)


def test_an_npz_without_the_array_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", image=numbers())
    with pytest.raises(ConfigError, match="holds image; expected an array 'dn'"):
        load_scene(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (numbers(bands=3), r"shape \(20, 30, 3\); expected \(height, width, bands\)"),
        (np.moveaxis(numbers(), -1, 0), r"shape \(4, 20, 30\)"),
        (numbers()[..., 0], r"shape \(20, 30\)"),
        (numbers(height=8), "8 x 30 px"),
        (numbers().astype(np.int32) - 1, "from -1 to"),
        (numbers().astype(np.float32), "reflectances from 0.0 to"),
        (np.full((20, 20, 4), np.nan), "reflectances from nan"),
        (numbers().astype(np.complex64), "type complex64"),
    ],
)
def test_a_wrong_array_is_told(tmp_path: Path, values: np.ndarray, told: str) -> None:
    np.save(tmp_path / "s.npy", values)
    with pytest.raises(ConfigError, match=told):
        load_scene(tmp_path / "s.npy")


def test_a_tiff_with_too_few_pages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    Image.fromarray(numbers()[..., 0]).save(tmp_path / "s.tif")
    with pytest.raises(ConfigError, match=r"1 page\(s\) of mode I;16; expected at least 4 pages"):
        load_scene(tmp_path / "s.tif")


def test_digital_numbers_and_reflectances_are_each_others_inverse() -> None:
    dn = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_dn(to_reflectance(dn)), dn)


def test_an_acquisition_without_cover_is_the_clear_scene() -> None:
    scene = Scene(numbers(), "s", "")
    first, second = acquisitions(scene, (0.0, 0.15), stream(1))
    assert np.array_equal(first.dn, numbers())
    assert not first.truth.any()
    assert second.truth.mean() == pytest.approx(0.15, abs=0.01)
    assert not np.array_equal(second.dn, numbers())


def test_the_first_acquisitions_do_not_depend_on_how_many_follow() -> None:
    scene = Scene(numbers(), "s", "")
    covers = (0.0, 0.3, 0.6, 0.3, 0.6)
    few, many = (acquisitions(scene, covers[:count], stream(1)) for count in (3, 5))
    assert [a.dn.tobytes() for a in few] == [a.dn.tobytes() for a in many[:3]]
    assert [(a.index, a.cover) for a in many] == list(enumerate(covers))
    assert many[1].truth.tobytes() != many[3].truth.tobytes()


@pytest.mark.parametrize("covers", [(), (0.2, 1.5)])
def test_impossible_acquisitions_are_refused(covers: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="cover"):
        acquisitions(Scene(numbers(), "s", ""), covers, stream(1))


def test_tiles_cover_the_scene_row_after_row() -> None:
    dn = numbers(bands=6)
    tiles = cut(dn, 8)
    assert [(tile.row, tile.column) for tile in tiles] == [(r, c) for r in range(2) for c in range(3)]
    assert np.array_equal(tiles[4].dn, dn[8:16, 8:16, :4])


def test_masks_of_tiles_go_together_and_lost_ones_stay_unknown() -> None:
    truth = numbers()[..., 0] % 3 == 0
    parts = cut_truth(truth, 8)
    whole, known = join_masks(parts, (20, 30), 8)
    truth = truth[:16, :24]  # what whole tiles cover
    assert np.array_equal(whole, truth)
    assert known.all()
    del parts[1, 2]
    whole, known = join_masks(parts, (20, 30), 8)
    assert np.array_equal(whole[known], truth[known])
    assert not known[8:, 16:].any()
    assert known.sum() == 5 * 64


@pytest.mark.parametrize(("at", "side"), [((2, 0), 8), ((0, 3), 8), ((-1, 0), 8), ((0, 0), 7)])
def test_a_mask_that_does_not_belong_is_refused(at: tuple[int, int], side: int) -> None:
    with pytest.raises(ConfigError, match="mask of tile"):
        join_masks({at: np.ones((side, side), np.bool_)}, (16, 24), 8)


@pytest.mark.parametrize("tile_px", [0, 21])
def test_a_tile_larger_than_the_scene_is_refused(tile_px: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 20"):
        grid((20, 30), tile_px)
