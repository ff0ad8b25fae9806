"""Train the cloud mask network and write `hil/assets/cloud-mask.onnx`.

    pip install torch==2.13.0 onnx numpy
    python scripts/train_cloud_mask.py

The only place that needs torch. It takes about ten minutes on one core, in one thread. Everything is drawn from one
seed: two runs on the same machine give the same weights; other machines differ in the last bits, and so end near the
shipped file but not at it. Judge the result with `scripts/evaluate_cloud_mask.py`, which shares no draw with this
script; it judges on the eastern third of the real scene, which is never shown here.

The network is a U-Net of depthwise separable convolutions (4 -> 12 -> 24 -> 48 channels): 10,805 parameters, of which
the export keeps 10,325 after folding the normalisation into the convolutions.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from evaluate_cloud_mask import HELD_OUT_COLUMN, MODEL, REFLECTANCE_SCALE, SCENE

from hil.imagery.clouds import ground, overlay

CROP_PX = 64
SHEET_PX = 192  # a sheet is cut into nine crops, so that crops full of cloud, and shadows without their cloud, occur
WIDTHS = (12, 24, 48)


def draw_ground(real: np.ndarray, size_px: int, random: np.random.Generator) -> np.ndarray:
    """Return clear ground, ``(size_px, size_px, 4)``: three in ten from the western, not held-out, real scene."""
    if random.random() >= 0.3:
        return ground((size_px, size_px), random)
    row = random.integers(0, real.shape[0] - size_px + 1)
    column = random.integers(0, HELD_OUT_COLUMN - size_px + 1)
    crop = real[row : row + size_px, column : column + size_px] * np.float32(random.uniform(0.8, 1.2))
    return np.rot90(crop, int(random.integers(4)))


def draw_cover(random: np.random.Generator) -> float:
    """Return a cloud cover: clear in one draw of four."""
    return 0.0 if random.random() < 0.25 else float(random.uniform(0.02, 0.98))


def draw_set(sheets: int, singles: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures ``(n, 4, 64, 64)`` and truths ``(n, 1, 64, 64)``, n = 9 sheets + singles."""
    random = np.random.default_rng(seed)
    with np.load(SCENE) as scene:
        real = scene["dn"].astype(np.float32) / REFLECTANCE_SCALE
    pictures, truths = [], []
    for index in range(sheets + singles):
        size_px = SHEET_PX if index < sheets else CROP_PX
        picture, truth = overlay(draw_ground(real, size_px, random), draw_cover(random), random)
        for row in range(0, size_px, CROP_PX):
            for column in range(0, size_px, CROP_PX):
                window = slice(row, row + CROP_PX), slice(column, column + CROP_PX)
                pictures.append(np.moveaxis(picture[window], -1, 0))
                truths.append(truth[window][None])
    return torch.tensor(np.stack(pictures)), torch.tensor(np.stack(truths), dtype=torch.float32)


def separable(inside: int, outside: int) -> list[nn.Module]:
    """Return a depthwise and a pointwise convolution, normalised and rectified."""
    depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside)
    return [depthwise, nn.Conv2d(inside, outside, 1), nn.BatchNorm2d(outside), nn.ReLU()]


class CloudMaskNetwork(nn.Module):
    """Two levels down, two up; reflectance in, logit of "cloud" out."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.down_fine = self.block(4, fine)
        self.down_middle = self.block(fine, middle)
        self.bottom = self.block(middle, coarse)
        self.up_middle = self.block(coarse + middle, middle)
        self.up_fine = self.block(middle + fine, fine)
        self.head = nn.Conv2d(fine, 1, 1)

    @staticmethod
    def block(inside: int, outside: int) -> nn.Sequential:
        """Return two separable convolutions."""
        return nn.Sequential(*separable(inside, outside), *separable(outside, outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 1, h, w)`` for reflectances ``(n, 4, h, w)``; h and w are multiples of 4."""
        fine = self.down_fine(x * 4 - 1)
        middle = self.down_middle(functional.max_pool2d(fine, 2))
        bottom = self.bottom(functional.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([functional.interpolate(bottom, scale_factor=2.0), middle], 1))
        return self.head(self.up_fine(torch.cat([functional.interpolate(middle, scale_factor=2.0), fine], 1)))


def turned(pictures: torch.Tensor, turn: int) -> torch.Tensor:
    """Return the pictures under one of the eight symmetries of the square."""
    rotated = torch.rot90(pictures, turn % 4, (2, 3))
    return rotated.flip(3) if turn >= 4 else rotated


def train(epochs: int, sheets: int, singles: int, seed: int) -> CloudMaskNetwork:
    """Train and return the network, printing the loss of every epoch."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    pictures, truths = draw_set(sheets, singles, seed)
    network = CloudMaskNetwork()
    print(f"{len(pictures)} crops, {sum(p.numel() for p in network.parameters())} parameters", flush=True)
    batch = 32
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    steps = epochs * -(-len(pictures) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(pictures)).split(batch):
            turn = int(torch.randint(8, ()))
            loss = functional.binary_cross_entropy_with_logits(
                network(turned(pictures[index], turn)), turned(truths[index], turn)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(index)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(pictures):.4f}", flush=True)
    return network.eval()


def main() -> None:
    """Train as the command line asks and write the ONNX file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--sheets", type=int, default=200)
    parser.add_argument("--singles", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=MODEL)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = train(arguments.epochs, arguments.sheets, arguments.singles, arguments.seed)
    axes = {0: "n", 2: "h", 3: "w"}
    torch.onnx.export(
        network,
        (torch.zeros(1, 4, CROP_PX, CROP_PX),),
        str(arguments.out),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": axes, "y": axes},
        opset_version=17,
        dynamo=False,
    )
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
