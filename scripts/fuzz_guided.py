"""One decoder under libFuzzer's coverage guidance (atheris). Started by `fuzz.py --coverage` in a fitting environment.

    python scripts/fuzz_guided.py DECODER SECONDS SEED CORPUS

Inputs start from samples, and mutations know their formats: half of them are made by `hil.fuzz`, half by libFuzzer.
"""

import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Final

import atheris

with atheris.instrument_imports(include=["flightsw"]):
    from hil.fuzz import decoders, mutation
    from hil.fuzz.corpus import cases, keep

SEEDS: Final = 400
"""Samples to start from."""
STRUCTURED: Final = 0.5
"""Share of mutations that know the format."""


def main() -> None:
    """Run until the time is over or something is found."""
    name, seconds, seed, corpus = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    known = {decoder.name: decoder for decoder in decoders.wire()}
    if name not in known:
        sys.exit(f"{name}: guided by coverage are {', '.join(known)}")
    decoder = known[name]

    def one(data: bytes) -> None:
        try:
            decoders.verdict(decoder, data)
        except Exception as error:
            keep(corpus, name, data, f"{type(error).__name__}: {error}")
            raise

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < STRUCTURED:
            other = decoder.sample(random)
            return (other if random.random() < 0.1 else mutation.mutated(random, data, other))[:size_max]
        mutated: bytes = atheris.Mutate(data, size_max)
        return mutated

    with tempfile.TemporaryDirectory(prefix="flatrack-guided-") as folder:
        random = Random(seed)
        for number, data in enumerate([decoder.sample(random) for _ in range(SEEDS)] + cases(corpus, name)):
            (Path(folder) / f"{number:04}").write_bytes(data)
        arguments = [
            f"-seed={seed}",
            f"-max_total_time={seconds}",
            f"-max_len={mutation.INPUT_BYTES_MAX}",
            "-verbosity=1",
        ]
        arguments += [f"-artifact_prefix={folder}/", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *arguments, folder], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
