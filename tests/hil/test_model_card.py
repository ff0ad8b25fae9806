"""The shipped cloud mask is what its card says: size, digest, and how well it finds clouds that it never saw."""

import hashlib
import importlib.util
import re
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from flightsw.compute.inference import ModelImage

ROOT = Path(__file__).resolve().parents[2]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
CARD = (ROOT / "hil" / "assets" / "MODEL_CARD.md").read_text()

IOU_MIN = 0.85
FALSE_CLOUD_MAX = 0.05


@pytest.fixture(scope="module")
def evaluation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_cloud_mask", ROOT / "scripts" / "evaluate_cloud_mask.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path  # the script adds the root of the tree for those who run it uninstalled
    return module


def figures(text: str) -> list[tuple[str, list[float]]]:
    """Return the lines of an evaluation as their words and their numbers."""
    lines = [line for line in text.splitlines() if "IoU" in line or "false" in line]
    return [
        (re.sub(r"\d+\.\d+", "_", line), [float(number) for number in re.findall(r"\d+\.\d+", line)]) for line in lines
    ]


def test_the_model_is_small_and_its_digest_is_on_the_card() -> None:
    assert len(MODEL) < 100_000
    assert hashlib.sha256(MODEL).hexdigest() in CARD
    assert f"{len(MODEL):,} bytes" in CARD
    assert f"{ModelImage(MODEL).weight_bits_count // 32:,} weights" in CARD


def test_the_model_has_the_interface_on_the_card() -> None:
    model = onnx.load_from_string(MODEL)
    assert [opset.version for opset in model.opset_import] == [17]
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes["x"] == ["n", 4, "h", "w"]
    assert shapes["y"][:2] == ["n", 1]
    assert list(shapes) == ["x", "y"]


def test_clouds_over_generated_ground_are_found(evaluation: ModuleType) -> None:
    score = evaluation.score(evaluation.generated_tiles(40, evaluation.SEED), ModelImage(MODEL))
    assert score.iou >= IOU_MIN
    assert score.false_rate < FALSE_CLOUD_MAX


def test_generated_clouds_over_held_out_real_ground_are_found(evaluation: ModuleType) -> None:
    tiles = islice(evaluation.real_tiles(5, evaluation.SEED + 1), 40)
    score = evaluation.score(tiles, ModelImage(MODEL))
    assert score.iou >= IOU_MIN
    assert score.false_rate < FALSE_CLOUD_MAX


def test_clear_real_ground_is_not_called_cloud(evaluation: ModuleType) -> None:
    score = evaluation.score(evaluation.clear_tiles(), ModelImage(MODEL))
    assert score.clear == score.total == 8 * 48 * 48
    assert score.false_rate < FALSE_CLOUD_MAX


def test_a_blind_model_does_not_pass(evaluation: ModuleType) -> None:
    image = ModelImage(MODEL)
    for start, length in image.weight_ranges():
        image.data[start : start + length] = bytes(length)
    assert evaluation.score(evaluation.generated_tiles(10, evaluation.SEED), image).iou < 0.05


@pytest.mark.slow
def test_every_figure_on_the_card_is_what_the_evaluation_prints(
    evaluation: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate_cloud_mask.py"])
    evaluation.main()
    measured = figures(capsys.readouterr().out)
    block = CARD.split("```text\n")[1].split("```")[0]
    printed = figures(block)
    assert len(measured) >= 9
    assert [words for words, _ in printed] == [words for words, _ in measured]
    for (words, expected), (_, found) in zip(printed, measured, strict=True):
        assert found == pytest.approx(expected, rel=0.05, abs=0.01), words  # processors differ a little
