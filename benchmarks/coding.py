"""What the codings of the link cost: processor time and overhead; Reed-Solomon beside reedsolo where it is installed.

One frame or code word at a time, as the bundle agent uses them; medians of single calls.

Run: python benchmarks/coding.py [--json FILE]
"""

import importlib.util
import time
from collections.abc import Callable
from random import Random
from statistics import median
from typing import Final

from report import Report, json_path

from flightsw.errors import WireError
from flightsw.wire.framing import Coding, coding
from flightsw.wire.reed_solomon import DATA_BYTES, ERRORS_MAX, PARITY_BYTES, WORD_BYTES, ReedSolomon

CALLS_COUNT: Final = 300
REFERENCE_CALLS_COUNT: Final = 5
"""Of an implementation whose calls take milliseconds."""
SEGMENT_BYTES: Final = 1058
"""A full segment of 1024 bytes with a usual header."""
BEACON_BYTES: Final = 130
FRAMES_COUNT: Final = 200
"""Frames that are sent through noise for each share of frames that come through."""


def main() -> None:
    """Run all and print."""
    path = json_path(__doc__ or "")
    report = Report("coding")
    words(report)
    for name in ("cobs-crc32c", "ccsds-rs-1", "ccsds-rs-5"):
        frames(report, coding(name))
    if path is not None:
        report.write_json(path)


def words(report: Report) -> None:
    """Code words of 223 data bytes; rates are of data."""
    chance = Random(1)
    code = ReedSolomon()
    data = chance.randbytes(DATA_BYTES)
    word = data + code.parity(data)
    rates = {"encode": rate(DATA_BYTES, lambda: code.parity(data))}
    noisy = {count: struck(word, count, chance) for count in (0, 1, 8, ERRORS_MAX)}
    for count, received in noisy.items():
        rates[f"decode, {count} wrong"] = rate(DATA_BYTES, lambda received=received: code.correct(received))
    goals = {"encode": "> 15", "decode, 0 wrong": "> 13", f"decode, {ERRORS_MAX} wrong": "> 2"}
    for name, value in rates.items():
        report.add(f"RS(255,223) {name}", value, "MB/s", goals.get(name, ""))
    block = chance.randbytes(5 * DATA_BYTES)
    report.add("RS(255,223) encode, 5 words at once", rate(len(block), lambda: code.parity(block, 5)), "MB/s", "> 60")
    if importlib.util.find_spec("reedsolo") is None:
        print("reedsolo: not installed, no ratios (pip install reedsolo)")
        return
    import reedsolo

    oracle = reedsolo.RSCodec(PARITY_BYTES, nsize=WORD_BYTES, fcr=112, prim=0x187, generator=173)
    theirs = {"encode": rate(DATA_BYTES, lambda: oracle.encode(data), REFERENCE_CALLS_COUNT)}
    for count in (0, ERRORS_MAX):
        received = bytearray(noisy[count])
        theirs[f"decode, {count} wrong"] = rate(
            DATA_BYTES, lambda received=received: oracle.decode(received), REFERENCE_CALLS_COUNT
        )
    for name, value in theirs.items():
        report.add(f"RS(255,223) {name}, over reedsolo", rates[name] / value, "times", "> 20")


def frames(report: Report, code: Coding) -> None:
    """Whole frames; rates are of payload."""
    chance = Random(2)
    cost(report, f"{code.name}, beacon of {BEACON_BYTES} B", code, chance.randbytes(BEACON_BYTES))
    segment = chance.randbytes(SEGMENT_BYTES)
    cost(report, f"{code.name}, segment of {SEGMENT_BYTES} B", code, segment)
    coded = code.encode(segment)
    for bit_error_rate in (1e-5, 1e-4, 1e-3, 5e-3, 1e-2):
        through = sum(delivers(code, coded, bit_error_rate, chance) for _ in range(FRAMES_COUNT))
        report.add(f"{code.name}, segments through BER {bit_error_rate:g}", 100 * through / FRAMES_COUNT, "%")


def cost(report: Report, what: str, code: Coding, payload: bytes) -> None:
    """Overhead and rates of one payload."""
    coded, length = code.encode(payload), len(payload)
    report.add(f"{what}: overhead", 100 * (len(coded) / length - 1), "%")
    report.add(f"{what}: encode", rate(length, lambda: code.encode(payload)), "MB/s")
    report.add(f"{what}: clean decode", rate(length, lambda: code.decode(coded)), "MB/s")
    report.add(f"{what}: clean decode, flips counted", rate(length, lambda: code.correct(coded)), "MB/s")


def delivers(code: Coding, coded: bytes, bit_error_rate: float, chance: Random) -> bool:
    """Whether a frame comes through noise."""
    received = bytearray(coded)
    for bit in range(8 * len(coded)):
        if chance.random() < bit_error_rate:
            received[bit // 8] ^= 0x80 >> bit % 8
    try:
        code.decode(bytes(received))
    except WireError:
        return False
    return True


def struck(word: bytes, errors_count: int, chance: Random) -> bytes:
    """The word with so many wrong symbols."""
    received = bytearray(word)
    for place in chance.sample(range(len(word)), errors_count):
        received[place] ^= chance.randrange(1, 256)
    return bytes(received)


def rate(length: int, call: Callable[[], object], calls_count: int = CALLS_COUNT) -> float:
    """Throughput of a call that handles that many bytes [MB/s]."""
    times_s = []
    for _ in range(calls_count):
        start_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start_s)
    return length / median(times_s) / 1e6


if __name__ == "__main__":
    main()
