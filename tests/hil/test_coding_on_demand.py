"""Coding on demand changes nothing: the same trace as when every frame is really coded and decoded."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from flightsw.compute.inference import InferenceCache
from flightsw.ports import Frame
from flightsw.wire import framing
from flightsw.wire.frames import CodedFrame
from flightsw.wire.framing import coding, received
from hil.bench.run import Bench
from hil.bench.scenario import Scenario, load
from hil.channel.bit_errors import flipped

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three.toml"
CODINGS = ("cobs-crc32c", "ccsds-rs-1", "ccsds-rs-5-dual")
NOISE = {"cobs-crc32c": 2e-5, "ccsds-rs-1": 5e-3, "ccsds-rs-5-dual": 5e-3}
"""Bit error rate at which some frames hold, some are corrected (where the coding can) and some are refused."""


def noisy(name: str) -> Scenario:
    scenario = load(str(EXAMPLE))
    ground = scenario.links.ground
    ground = replace(ground, coding=name, impairments=replace(ground.impairments, bit_error_rate=NOISE[name]))
    return replace(scenario, links=replace(scenario.links, ground=ground))


@pytest.mark.parametrize("name", CODINGS)
def test_a_run_has_the_same_trace_whether_frames_are_coded_on_demand_or_always(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_demand = Bench(noisy(name), 7, until_s=1200.0, cache=InferenceCache()).run()
    code = type(coding(name))

    def always(self: framing.Coding, payload: bytes, padding_bytes: int = 0) -> Frame:
        return self.encode(payload)

    monkeypatch.setattr(code, "frame", always)
    really = Bench(noisy(name), 7, until_s=1200.0, cache=InferenceCache()).run()
    assert on_demand.counters["frames_sent"] > 500
    assert on_demand.counters["bits_flipped"] > 0
    assert on_demand.digest == really.digest
    assert on_demand.counters == really.counters


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("payload_bytes", [1, 5, 200, 223, 254, 255, 1024, 1115, 8192])
def test_the_length_of_a_frame_is_known_before_its_bits_are(name: str, payload_bytes: int) -> None:
    payload = bytes(i * 7 % 256 for i in range(payload_bytes))
    frame = coding(name).frame(payload, padding_bytes=100)
    length = len(frame)
    assert length == len(bytes(frame)) + 100 == len(coding(name).encode(payload)) + 100
    assert bytes(frame) == coding(name).encode(payload)


def test_a_frame_of_another_coding_is_really_decoded_and_refused() -> None:
    frame = coding("ccsds-rs-1").frame(b"segment")
    with pytest.raises(framing.FrameError):
        received(coding("cobs-crc32c"), frame)
    assert received(coding("ccsds-rs-1"), frame) == (b"segment", 0)


def test_a_clean_frame_is_not_coded_and_a_struck_one_is() -> None:
    frame = coding("ccsds-rs-1").frame(b"segment")
    assert received(coding("ccsds-rs-1"), frame) == (b"segment", 0)
    struck = flipped(frame, [40])
    assert isinstance(struck, bytes)
    assert received(coding("ccsds-rs-1"), struck) == (b"segment", 1)


def test_flips_in_the_padding_strike_the_frame_as_if_its_bytes_moved() -> None:
    code = coding("cobs-crc32c")
    frame = code.frame(b"chunk of synthetic data", padding_bytes=16_384)
    struck = flipped(frame, [8 * 5_000 + 3])
    assert isinstance(struck, CodedFrame)
    assert len(struck) == len(frame)
    with pytest.raises(framing.FrameError):
        received(code, struck)
