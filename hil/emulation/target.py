"""`python -m hil.emulation.target --port DEVICE`: what bits are flipped under, on an emulated board.

A bench that strikes RAM a few hundred times needs a verdict in a fraction of a second. So this is no whole node: it is
the flight code of a job, with its measures against struck memory as the executor takes them, and the UART. It answers
`job N` with one line of JSON; N comes back, so that an answer of before a restore is never taken for one after it.
"""

import argparse
import hashlib
import json
import os
import sys
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from flightsw.compute import cloud_mask, kinds
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.errors import BoardError, FlatrackError

MODEL: Final = Path(__file__).parents[1] / "assets" / "cloud-mask.onnx"
TILE_SIDE_PX: Final = 16
"""Small enough for eight inferences in a tenth of a second under emulation."""
READY: Final = "target: ready"
MAKES: Final = "target: loads"


class Target:
    """A job that can be run again and again.

    Args:
        model: the ONNX file, as its object on the node's disk would hold it.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._cache = InferenceCache(sessions_max=1, results_bytes_max=0)
        ramp = np.arange(TILE_SIDE_PX * TILE_SIDE_PX * cloud_mask.BANDS) * 37 % 9000
        tile = ramp.reshape(TILE_SIDE_PX, TILE_SIDE_PX, cloud_mask.BANDS).astype(np.uint16)
        self._tile = cloud_mask.encode_tile(tile)
        self._image = ModelImage(model)

    def job(self, number: int) -> dict[str, object]:
        """Run the job; its answer: a digest of the mask, and what the measures have found."""
        mended_count, reloads_count = self._image.guard_weights(), 0
        if not self._image.is_as_loaded():
            self._reload()
            reloads_count += 1
        try:
            mask = self._mask()
        except BoardError:
            mask = b""
        if not mask or not self._image.is_as_loaded():  # struck while it ran: the job is rolled back, as in flight
            self._reload()
            reloads_count += 1
            mask = self._mask()
        return {
            "job": number,
            "mask": hashlib.sha256(mask).hexdigest(),
            "mended": mended_count,
            "reloaded": reloads_count,
            "pid": os.getpid(),
        }

    def _reload(self) -> None:
        self._image = ModelImage(self._model)
        self._cache = InferenceCache(sessions_max=1, results_bytes_max=0)

    def _mask(self) -> bytes:
        state = b""
        for _ in range(cloud_mask.STEPS):
            step = kinds.step(cloud_mask.NAME, self._image, state, self._tile, None)
            try:
                operation = next(step)
                while True:
                    operation = step.send(kinds.compute(operation, self._image, self._cache))
            except StopIteration as done:
                state = done.value
        return kinds.finish(cloud_mask.NAME, state, self._tile)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m hil.emulation.target", description=__doc__)
    parser.add_argument("--port", type=Path, required=True, metavar="DEVICE", help="UART that leads to the bench")
    given = parser.parse_args(arguments)
    with given.port.open("r+b", buffering=0) as port:
        tty.setraw(port)

        def say(text: str) -> None:
            port.write(text.encode() + b"\n")

        say(MAKES)
        target = Target(MODEL.read_bytes())
        target.job(0)
        say(READY)
        waiting = b""
        while data := port.read(256):
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                word, _, number = line.partition(b" ")
                if word != b"job" or not number.isdigit():
                    continue
                try:
                    say(json.dumps(target.job(int(number))))
                except FlatrackError as error:
                    say(json.dumps({"job": int(number), "error": str(error)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
