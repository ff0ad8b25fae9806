"""Feed hostile bytes to every decoder of bytes that are not trusted, and to whole machines.

    python scripts/fuzz.py --inputs 5000000 --seed 1
    python scripts/fuzz.py --decoder bundle --batch 17 --seed 1     # one batch again, alone
    python scripts/fuzz.py --decoder bundle --coverage 60           # guided by coverage, for a minute

A finding is an exception that a decoder does not document, a promise that it does not keep, an input that takes longer
than `INPUT_S_MAX`, or one that takes more memory than `INPUT_PEAK_BYTES_MAX`. Findings are printed with the line that
repeats them and kept in tests/data/hostile, where tests try them again. Exit code 1 when there are any.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from hil.fuzz.batches import Batch, batches, decoders, inputs_of, size_of
from hil.fuzz.corpus import keep
from hil.fuzz.decoders import Decoder, verdict
from hil.fuzz.measure import lines_run, peak_bytes

ROOT: Final = Path(__file__).resolve().parent.parent
CORPUS: Final = ROOT / "tests" / "data" / "hostile"
INPUT_S_MAX: Final = 20.0
"""An input that takes longer hangs [s]: the slowest session of a whole node takes a tenth of a second."""
INPUT_PEAK_BYTES_MAX: Final = 64 << 20
"""Most memory for one input [bytes]: boards have 4 GiB, and inputs here are at most 16 KiB long."""
MEASURED_EVERY: Final = 500
"""One of so many inputs is run again to count lines and memory, which is slow."""
FINDINGS_SHOWN: Final = 5
"""Findings of one decoder that are printed and kept; more are most likely the same."""


class TooLong(BaseException):
    """The watchdog; nothing that decodes may catch it."""


@dataclass
class Result:
    """What a batch did."""

    decoder: str
    inputs_count: int = 0
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_bytes: int = 0
    lines_max: int = 0
    peak_bytes_max: int = 0
    findings: list[tuple[bytes, str]] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Take in another batch of the same decoder."""
        self.inputs_count += other.inputs_count
        self.seconds += other.seconds
        self.verdicts += other.verdicts
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest_bytes = other.slowest_s, other.slowest_bytes
        self.lines_max = max(self.lines_max, other.lines_max)
        self.peak_bytes_max = max(self.peak_bytes_max, other.peak_bytes_max)
        self.findings += other.findings


def run(batch: Batch, seed: int) -> Result:
    """Run one batch under the watchdog."""
    signal.signal(signal.SIGALRM, _too_long)
    decoder = decoders()[batch.decoder]
    result = Result(batch.decoder)
    for number, data in enumerate(inputs_of(batch, seed)):
        start_s = time.perf_counter()
        _run_one(decoder, data, result)
        took_s = time.perf_counter() - start_s
        result.seconds += took_s
        if took_s > result.slowest_s:
            result.slowest_s, result.slowest_bytes = took_s, len(data)
        if number % MEASURED_EVERY == 0 and not result.findings:
            _measure(decoder, data, result)
    return result


def _run_one(decoder: Decoder, data: bytes, result: Result) -> None:
    signal.setitimer(signal.ITIMER_REAL, INPUT_S_MAX)
    try:
        result.verdicts[verdict(decoder, data)] += 1
    except (Exception, TooLong) as error:
        result.verdicts["FINDING"] += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        result.findings.append((data, f"{type(error).__name__} at {where}: {str(error)[:160]}"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    result.inputs_count += 1


def _measure(decoder: Decoder, data: bytes, result: Result) -> None:
    result.peak_bytes_max = max(result.peak_bytes_max, peak := peak_bytes(lambda: verdict(decoder, data)))
    result.lines_max = max(result.lines_max, lines_run(lambda: verdict(decoder, data)))
    if peak > INPUT_PEAK_BYTES_MAX:
        result.findings.append((data, f"takes {peak} bytes of memory, at most {INPUT_PEAK_BYTES_MAX} are allowed"))


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"an input took longer than {INPUT_S_MAX} s")


def campaign(names: list[str], inputs_count: int, seed: int, processes: int) -> dict[str, Result]:
    """All batches, in several processes; results by decoder."""
    results = {name: Result(name) for name in names}
    left = Counter[str]()
    with ProcessPoolExecutor(processes) as pool:
        futures = {}
        for batch in batches(names, inputs_count):
            futures[pool.submit(run, batch, seed)] = batch
            left[batch.decoder] += 1
        for future in as_completed(futures):
            batch = futures[future]
            found = future.result()
            for data, why in found.findings[:FINDINGS_SHOWN]:
                _tell(batch, seed, data, why)
            results[batch.decoder].add(found)
            left[batch.decoder] -= 1
            if not left[batch.decoder]:
                print(line_of(results[batch.decoder]), flush=True)
    return results


def _tell(batch: Batch, seed: int, data: bytes, why: str) -> None:
    again = f"python scripts/fuzz.py --decoder {batch.decoder} --batch {batch.number} --seed {seed}"
    print(
        f"FINDING {batch.decoder}: {why}\n  {data[:64].hex()}{'...' if len(data) > 64 else ''}\n  {again}", flush=True
    )
    keep(CORPUS, batch.decoder, data, why)


def line_of(result: Result) -> str:
    """One line for one decoder."""
    verdicts = ", ".join(f"{name} {count:,}" for name, count in sorted(result.verdicts.items()))
    rate = result.inputs_count / result.seconds if result.seconds else 0.0
    return (
        f"{result.decoder:22} {result.inputs_count:>9,} inputs {rate:>9,.0f}/s  "
        f"slowest {1000 * result.slowest_s:8.2f} ms ({result.slowest_bytes:,} B)  "
        f"at most {result.lines_max:,} lines, {result.peak_bytes_max / 1000:,.0f} kB  {verdicts}"
    )


def guided(names: list[str], seconds: int, seed: int) -> int:
    """Let coverage guide the inputs of some decoders, each for so many seconds; the number that found something."""
    from peer_environment import PeerUnavailable, interpreter

    try:
        python = interpreter("fuzz")
    except PeerUnavailable as error:
        sys.exit(str(error))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # flatrack is not installed there
    failed = 0
    for name in names:
        command = [str(python), str(ROOT / "scripts" / "fuzz_guided.py"), name, str(seconds), str(seed), str(CORPUS)]
        failed += subprocess.run(command, check=False, env=environment).returncode != 0
    return failed


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = decoders()
    parser.add_argument("--inputs", type=int, default=200_000, help="inputs in all (200000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--decoder", action="append", choices=sorted(known), help="only this one; may be repeated")
    parser.add_argument("--batch", type=int, help="only this batch of the decoders")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--coverage", type=int, metavar="SECONDS", help="guided by coverage instead, for each decoder")
    options = parser.parse_args()
    names = options.decoder or list(known)
    if options.coverage is not None:
        return int(guided(names, options.coverage, options.seed) > 0)
    if options.batch is not None:
        findings_count = 0
        for name in names:
            batch = Batch(name, options.batch, size_of(known[name]))
            result = run(batch, options.seed)
            for data, why in result.findings[:FINDINGS_SHOWN]:
                _tell(batch, options.seed, data, why)
            print(line_of(result))
            findings_count += len(result.findings)
        return int(findings_count > 0)
    start_s = time.perf_counter()
    results = campaign(names, options.inputs, options.seed, options.processes)
    total = sum(result.inputs_count for result in results.values())
    findings = sum(result.verdicts["FINDING"] for result in results.values())
    print(f"{total:,} inputs for {len(names)} decoders in {time.perf_counter() - start_s:.0f} s: {findings} findings")
    return int(any(result.findings for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
