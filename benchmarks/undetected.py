"""How often a damaged frame is delivered as something that nobody sent: never, so far; and what theory says.

    python benchmarks/undetected.py [--frames 100000000] [--seed 1] [--processes 2] [--shard K] [--json FILE]

Every damaged frame goes through the real deframer (COBS) or the real decoder (Reed-Solomon, one frame in
`SPACE_SHARE`, because it takes a hundred times longer); nothing is worked out in another way. A delivered payload that
is not the sent one is an undetected error: it is printed with the shard that repeats it, and the exit code is 1.

That the benchmark would notice is shown beside it: with only 16 of the CRC's 32 bits, errors pass at the rate that
theory gives, and they are counted.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from report import Report

from flightsw.errors import CodingError, FrameError
from flightsw.wire import framing
from flightsw.wire.crc import crc32c
from flightsw.wire.framing import coding
from flightsw.wire.reed_solomon import PARITY_BYTES, ReedSolomon

Rows = NDArray[np.uint8]
"""(n, length) frames as they arrive, one a row."""
Damage = Callable[[np.random.Generator, Rows], Rows]

FRAMES: Final = 2_000_000
"""As many as take some seconds; --frames 100000000 is the full run."""
SHARD_FRAMES: Final = 500_000
"""Frames of one piece of work: the memory of a process stays below 300 MB."""
BATCH_FRAMES: Final = 20_000
SPACE_SHARE: Final = 100
PAYLOADS_BYTES: Final = (24, 24, 24, 130)
"""Mostly short frames: damage to more of them is tried in the same time, and theory knows no length."""
SPACE_PAYLOAD_BYTES: Final = 40
SPACE_HEAD_BYTES: Final = 14
"""Marker and five lengths, before the code word. Source: flightsw/wire/space_coding.py."""


# -- damage


def flips(chance: np.random.Generator, rows: Rows) -> Rows:
    """One to 64 random bits."""
    counts = chance.integers(1, 65, len(rows))
    for number in range(64):
        hit = np.flatnonzero(counts > number)
        bits = chance.integers(0, 8 * rows.shape[1], len(hit))
        rows[hit, bits >> 3] ^= (0x80 >> (bits & 7)).astype(np.uint8)
    return rows


def few_flips(chance: np.random.Generator, rows: Rows) -> Rows:
    """One to five random bits."""
    for number in range(5):
        hit = np.flatnonzero(chance.integers(0, 5, len(rows)) >= number)
        bits = chance.integers(0, 8 * rows.shape[1], len(hit))
        rows[hit, bits >> 3] ^= (0x80 >> (bits & 7)).astype(np.uint8)
    return rows


def burst(bits_min: int, bits_max: int) -> Damage:
    """A burst: the first and last bit wrong, those between by chance."""

    def strike(chance: np.random.Generator, rows: Rows) -> Rows:
        bits = 8 * rows.shape[1]
        lengths = chance.integers(bits_min, bits_max + 1, len(rows))
        starts = chance.integers(0, bits - lengths + 1)
        places = np.arange(bits)
        inside = (places >= starts[:, None]) & (places < (starts + lengths)[:, None])
        wrong = inside & (chance.random((len(rows), bits), np.float32) < 0.5)
        wrong[np.arange(len(rows)), starts] = True
        wrong[np.arange(len(rows)), starts + lengths - 1] = True
        return rows ^ np.packbits(wrong, axis=1)

    return strike


def noise(chance: np.random.Generator, rows: Rows) -> Rows:
    """Noise instead of a frame, with the delimiter where it was."""
    rows[:, :-1] = chance.integers(0, 256, (len(rows), rows.shape[1] - 1), np.uint8)
    return rows


def noise_without_zeros(chance: np.random.Generator, rows: Rows) -> Rows:
    """Noise that looks like stuffed data: no zero in it, and in half of the rows a length byte that fits them all."""
    rows[:, :-1] = chance.integers(1, 256, (len(rows), rows.shape[1] - 1), np.uint8)
    rows[::2, 0] = rows.shape[1] - 1
    return rows


def replaced(chance: np.random.Generator, rows: Rows) -> Rows:
    """One to eight bytes replaced by others."""
    for number in range(8):
        hit = np.flatnonzero(chance.integers(0, 8, len(rows)) >= number)
        rows[hit, chance.integers(0, rows.shape[1], len(hit))] = chance.integers(0, 256, len(hit), np.uint8)
    return rows


def moved(chance: np.random.Generator, rows: Rows) -> Rows:
    """A byte lost at one place and one added at another: all between moves by one."""
    first = chance.integers(0, rows.shape[1] - 1, len(rows))
    last = chance.integers(0, rows.shape[1], len(rows))
    low, high = np.minimum(first, last)[:, None], np.maximum(first, last)[:, None]
    places = np.arange(rows.shape[1])
    turned = np.where((places >= low) & (places < high), np.roll(rows, -1, axis=1), rows)
    turned[np.arange(len(rows)), high[:, 0]] = chance.integers(0, 256, len(rows), np.uint8)
    return turned


DAMAGES: Final[dict[str, Damage]] = {
    "1 to 5 flips": few_flips,
    "1 to 64 flips": flips,
    "bursts of 2 to 32 bits": burst(2, 32),
    "bursts of 33 to 200 bits": burst(33, 200),
    "noise": noise,
    "noise without zeros": noise_without_zeros,
    "1 to 8 bytes replaced": replaced,
    "a byte lost and one added": moved,
}


# -- the receivers


def plain_shard(seed: int, shard: int, frames_count: int) -> Counter[tuple[str, str]]:
    """Damaged COBS frames through the real deframer: (damage, what became of it) -> frames."""
    chance = np.random.Generator(np.random.PCG64([seed, shard]))
    code = coding("cobs-crc32c")
    counts: Counter[tuple[str, str]] = Counter()
    damages = list(DAMAGES.items())
    for number, at in enumerate(range(0, frames_count, BATCH_FRAMES)):
        name, damage = damages[number % len(damages)]
        length = PAYLOADS_BYTES[number // len(damages) % len(PAYLOADS_BYTES)]
        payload = chance.bytes(length) if number % 3 else chance.bytes(length // 2) + bytes(length - length // 2)
        sent = np.frombuffer(code.encode(payload), np.uint8)
        count = min(BATCH_FRAMES, frames_count - at)
        received = damage(chance, np.tile(sent, (count, 1)))
        damaged_count = int((received != sent).any(axis=1).sum())
        delivered = code.deframer().feed(received.tobytes() + b"\0")
        wrong = [one for one in delivered if one != payload]
        counts[name, "damaged"] += damaged_count
        counts[name, "intact"] += count - damaged_count
        counts[name, "delivered as sent"] += len(delivered) - len(wrong)
        counts[name, "undetected"] += len(wrong)
    return counts


def space_rows(chance: np.random.Generator, sent: bytes, name: str, count: int) -> Rows:
    """Damaged Reed-Solomon frames."""
    rows = np.tile(np.frombuffer(sent, np.uint8), (count, 1))
    word = rows[:, SPACE_HEAD_BYTES:]
    if name == "another code word":  # which the Reed-Solomon code cannot see: only the CRC can
        data = chance.integers(0, 256, (count, word.shape[1] - PARITY_BYTES), np.uint8)
        parity = np.frombuffer(ReedSolomon().parity(data.tobytes(), 1, count), np.uint8)
        word ^= np.concatenate([data, parity.reshape(count, PARITY_BYTES)], axis=1)
    elif name == "17 to 32 wrong symbols":
        wrong = np.argsort(chance.random(word.shape), axis=1) < chance.integers(17, 33, (count, 1))
        word ^= np.where(wrong, chance.integers(1, 256, word.shape, np.uint8), np.uint8(0))
    elif name == "1 to 16 wrong symbols":
        wrong = np.argsort(chance.random(word.shape), axis=1) < chance.integers(1, 17, (count, 1))
        word ^= np.where(wrong, chance.integers(1, 256, word.shape, np.uint8), np.uint8(0))
    else:
        word[:] = chance.integers(0, 256, word.shape, np.uint8)
    return rows


SPACE_DAMAGES: Final = ("1 to 16 wrong symbols", "17 to 32 wrong symbols", "another code word", "noise")


def space_shard(seed: int, shard: int, frames_count: int) -> Counter[tuple[str, str]]:
    """Damaged Reed-Solomon frames through the real decoder."""
    chance = np.random.Generator(np.random.PCG64([seed, shard, 1]))
    code = coding("ccsds-rs-1")
    counts: Counter[tuple[str, str]] = Counter()
    batch = max(1, min(1000, frames_count // len(SPACE_DAMAGES)))
    for number, at in enumerate(range(0, frames_count, batch)):
        name = SPACE_DAMAGES[number % len(SPACE_DAMAGES)]
        payload = chance.bytes(SPACE_PAYLOAD_BYTES)
        sent = code.encode(payload)
        for row in space_rows(chance, sent, name, min(batch, frames_count - at)):
            received = row.tobytes()
            counts[name, "intact" if received == sent else "damaged"] += 1
            try:
                delivered = code.decode(received)
            except (FrameError, CodingError) as error:
                counts[name, type(error).__name__] += 1
                continue
            counts[name, "delivered as sent" if delivered == payload else "undetected"] += 1
    return counts


def with_short_crc(frames_count: int, seed: int) -> tuple[int, float]:
    """Undetected errors with 16 bits of CRC, and how many theory expects; the real decoder, with a CRC cut short."""
    chance = np.random.Generator(np.random.PCG64([seed, 2]))
    full = framing.crc32c
    framing.crc32c = lambda data: crc32c(data) & 0xFFFF  # type: ignore[misc]
    try:
        code = coding("cobs-crc32c")
        payload = b"\x55" * 24
        sent = np.frombuffer(code.encode(payload), np.uint8)
        rows = np.tile(sent, (frames_count, 1))
        # The upper half of the short CRC is zero, and stays: damage is to the payload, which has no zeros before or
        # after, so that the structure holds and every frame reaches the CRC.
        rows[:, 1:25] = chance.integers(1, 256, (frames_count, 24), np.uint8)
        passed = [one for one in code.deframer().feed(rows.tobytes()) if one != payload]
    finally:
        framing.crc32c = full  # type: ignore[misc]
    return len(passed), frames_count / 2**16


def shard_of(work: tuple[str, int, int, int]) -> tuple[str, int, Counter[tuple[str, str]]]:
    """One piece of work, for a process of a pool."""
    kind, seed, shard, frames_count = work
    run = plain_shard if kind == "cobs-crc32c" else space_shard
    return kind, shard, run(seed, shard, frames_count)


def works(frames_count: int, seed: int) -> list[tuple[str, int, int, int]]:
    """All pieces of work for that many frames of the plain coding, and the share of the other."""
    made = []
    for shard, at in enumerate(range(0, frames_count, SHARD_FRAMES)):
        count = min(SHARD_FRAMES, frames_count - at)
        made.append(("cobs-crc32c", seed, shard, count))
        made.append(("ccsds-rs-1", seed, shard, max(1, count // SPACE_SHARE)))
    return made


def main() -> int:
    """Run all and print; 1 when an error passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES, help="damaged frames of the plain coding")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shard", type=int, help="only this piece of the work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    todo = [work for work in works(options.frames, options.seed) if options.shard in (None, work[2])]
    report = Report("undetected")
    totals: dict[str, Counter[tuple[str, str]]] = {"cobs-crc32c": Counter(), "ccsds-rs-1": Counter()}
    start_s = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        for kind, shard, counts in pool.map(shard_of, todo):
            totals[kind] += counts
            undetected = sum(count for (_, what), count in counts.items() if what == "undetected")
            if undetected:
                again = (
                    f"python benchmarks/undetected.py --frames {options.frames} --seed {options.seed} --shard {shard}"
                )
                print(f"{undetected} undetected in {kind}; again: {again}", flush=True)
    for kind, counts in totals.items():
        tell(report, kind, counts)
    report.add("took", time.perf_counter() - start_s, "s")
    passed, expected = with_short_crc(max(1, options.frames // 2), options.seed)
    report.add("with 16 bits of CRC: undetected", passed, f"frames (theory {expected:.1f} +- {expected**0.5:.1f})")
    if options.json is not None:
        report.write_json(options.json)
    return int(any(what == "undetected" and count for counts in totals.values() for (_, what), count in counts.items()))


def tell(report: Report, kind: str, counts: Counter[tuple[str, str]]) -> None:
    """The lines of one coding."""
    sums: Counter[str] = Counter()
    for (name, what), count in sorted(counts.items()):
        sums[what] += count
        if what == "damaged":
            others = [f"{counts[name, what]:,} {what}" for what in ("intact", "delivered as sent", "undetected")]
            print(f"  {kind}, {name}: {count:,} damaged, {', '.join(others)}")
    damaged = sums["damaged"]
    report.add(f"{kind}: damaged frames through the real decoder", damaged, "frames")
    report.add(f"{kind}: undetected errors", sums["undetected"], "frames", "0")
    if kind == "cobs-crc32c":
        report.add(f"{kind}: undetected in theory, at most", damaged / 2**32, "frames (2**-32 of those damaged)")
    else:
        words = counts["another code word", "damaged"]
        report.add(f"{kind}: refused by the CRC alone", counts["another code word", "FrameError"], f"of {words} frames")
        report.add(f"{kind}: corrected, delivered as sent", sums["delivered as sent"], "frames")
        report.add(f"{kind}: undetected in theory, at most", words / 2**32, "frames (2**-32 of other code words)")


if __name__ == "__main__":
    sys.exit(main())
