"""Segments, bundles and captures of one link, as small as a test wants them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flightsw.wire.bundles import Bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, Segment, encode_segment
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture, Packet
from hil.capture.recorder import Recorder
from hil.channel.relay import Fate, Way

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
CODING = coding("cobs-crc32c")
WAY = Way("isl-11-12", True, (11, 1), (12, 2))


def green(data: bytes, number: int = 1) -> DataSegment:
    return DataSegment((11, number), False, False, False, True, 1, 0, data)


def red(offset: int, data: bytes, *, is_last: bool = False, number: int = 1) -> DataSegment:
    return DataSegment((11, number), True, is_last, is_last, is_last, 1, offset, data, 1 if is_last else 0)


def bundle_of(payload: bytes, **options: Any) -> Bundle:
    return Bundle(Eid(12, 4), Eid(11, 0), DTN_NONE, (827_280_000_000, 7), 60_000, payload, age_ms=5, **options)


def recorder_at(path: Path, *, name: str = CODING.name, has_lost: bool = False) -> Recorder:
    identity = {"scenario": "test", "seed": 7, "flatrack": "1"}
    return Recorder(path, identity, UTC_NS, lambda _: name, has_lost=has_lost)


def record(path: Path, *segments: Segment) -> None:
    """A capture of these segments, one each second."""
    recorder = recorder_at(path)
    for second, segment in enumerate(segments, start=1):
        frame = CODING.frame(encode_segment(segment))
        recorder.observe(second * S, WAY, frame, frame, Fate.DELIVERED)
    recorder.close()


def packets_of(path: Path) -> list[Packet]:
    return list(Capture(path).packets())


def findings_of(path: Path, layer: Layer, node: int | None = None) -> list[dict[str, Any]]:
    return list(Inspection(Capture(path), layer, node).findings())


@pytest.fixture(scope="session", name="green")
def _green() -> Callable[..., DataSegment]:
    return green


@pytest.fixture(scope="session", name="red")
def _red() -> Callable[..., DataSegment]:
    return red


@pytest.fixture(scope="session", name="bundle_of")
def _bundle_of() -> Callable[..., Bundle]:
    return bundle_of


@pytest.fixture(scope="session", name="recorder_at")
def _recorder_at() -> Callable[..., Recorder]:
    return recorder_at


@pytest.fixture(scope="session", name="record")
def _record() -> Callable[..., None]:
    return record


@pytest.fixture(scope="session", name="packets_of")
def _packets_of() -> Callable[..., list[Packet]]:
    return packets_of


@pytest.fixture(scope="session", name="findings_of")
def _findings_of() -> Callable[..., list[dict[str, Any]]]:
    return findings_of
