"""Throughput of the wire against the best libraries that a Python user can install, in one run.

    python benchmarks/wire.py [--json FILE]

Peers run in environments of their own (scripts/peer_environment.py) and take turns with ours, so that the load of the
machine strikes both; each figure is the best of the turns. Ratios are what to quote: ours over the peer's. That a peer
did the same work is checked by what it gave. creedsolo, the fast form of reedsolo, cannot be installed any more.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from report import Report, json_path
from wire_peers import seconds

from flightsw.wire.bundles import Bundle, decode_bundle, encode_bundle
from flightsw.wire.crc import crc32c
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.messages import Beacon, Mode, decode_message, encode_message
from flightsw.wire.reed_solomon import DATA_BYTES, ERRORS_MAX, ReedSolomon
from hil.channel.bit_errors import IndependentErrors

HERE: Final = Path(__file__).resolve().parent
TURNS: Final = 2
SEGMENT_BYTES: Final = 1058
FLIP_FRAMES: Final = 2000
GOAL: Final = "> 1"


class Peers:
    """A process in another environment that times itself on request.

    Args:
        python: interpreter of the environment.
    """

    def __init__(self, python: str) -> None:
        command = [python, str(HERE / "wire_peers.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def ask(self, what: str, data: bytes) -> dict[str, tuple[float, str]]:
        """(seconds for a call, what it gave) by peer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"what": what, "data": data.hex()}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return {name: (float(took_s), given) for name, (took_s, given) in answer.items()}


class Race:
    """Ours against peers, in turns.

    Args:
        report: takes the lines.
        peers: the other process; None where a peer is a function here.
    """

    def __init__(self, report: Report, peers: Peers | None) -> None:
        self._report = report
        self._peers = peers

    def run(
        self,
        name: str,
        ours: Callable[[], object],
        what: str,
        data: bytes,
        *,
        given: str | None = None,
        work: float = 1.0,
        unit: str = "calls/s",
        goal: str = GOAL,
    ) -> None:
        """Print our rate, and how often it is each peer's.

        Args:
            name: of the race.
            ours: our call.
            what: which calls of the peers.
            data: their argument.
            given: what each must give, where that can be said.
            work: units in one call.
            unit: of the rate.
            goal: of the ratios.
        """
        assert self._peers is not None
        mine: list[float] = []
        theirs: dict[str, list[float]] = {}
        for _ in range(TURNS):
            mine.append(seconds(ours))
            for peer, (took_s, got) in self._peers.ask(what, data).items():
                assert given is None or got == given, f"{peer} does other work: {got[:60]}"
                theirs.setdefault(peer, []).append(took_s)
        mine.append(seconds(ours))
        self._tell(name, min(mine), {peer: min(times) for peer, times in theirs.items()}, work, unit, goal)

    def run_here(
        self, name: str, ours: Callable[[], object], theirs: dict[str, Callable[[], object]], work: float, unit: str
    ) -> None:
        """The same against functions of this process."""
        mine: list[float] = []
        others: dict[str, list[float]] = {}
        for _ in range(TURNS):
            mine.append(seconds(ours))
            for peer, call in theirs.items():
                others.setdefault(peer, []).append(seconds(call))
        self._tell(name, min(mine), {peer: min(times) for peer, times in others.items()}, work, unit, GOAL)

    def _tell(self, name: str, mine: float, theirs: dict[str, float], work: float, unit: str, goal: str) -> None:
        self._report.add(name, work / mine, unit)
        for peer, took_s in theirs.items():
            self._report.add(f"{name}, over {peer}", took_s / mine, "times", goal)


def reed_solomon(race: Race) -> None:
    """One code word at a time, as the bundle agent's frames have them; rates are of data."""
    chance = Random(1)
    code = ReedSolomon()
    data = chance.randbytes(DATA_BYTES)
    word = data + code.parity(data)
    struck = bytearray(word)
    for place in chance.sample(range(len(word)), ERRORS_MAX):
        struck[place] ^= chance.randrange(1, 256)
    rate: dict[str, Any] = {"work": DATA_BYTES / 1e6, "unit": "MB/s"}
    race.run("RS encode", partial(code.parity, data), "rs/encode", data, given=word.hex(), **rate)
    for name, received in (("clean", word), (f"{ERRORS_MAX} wrong symbols", bytes(struck))):
        ours = partial(code.correct, received)
        race.run(f"RS decode, {name}", ours, "rs/decode", received, given=data.hex(), **rate)


def framing(race: Race) -> None:
    """Frames of COBS and CRC-32C; the decoder names what is wrong with a frame, and bounds its length."""
    code = coding("cobs-crc32c")
    rate: dict[str, Any] = {"unit": "frames/s", "goal": ""}
    for length in (130, SEGMENT_BYTES):
        payload = Random(2).randbytes(length)
        coded = code.encode(payload)
        race.run(f"frame of {length} B, encode", partial(code.encode, payload), "framing/encode", payload, **rate)
        race.run(f"frame of {length} B, decode", partial(code.decode, coded), "framing/decode", coded, **rate)
    rate = {"work": SEGMENT_BYTES / 1e6, "unit": "MB/s", "goal": ""}
    race.run(f"CRC-32C of {SEGMENT_BYTES} B", partial(crc32c, payload), "crc", payload, **rate)


def messages(race: Race) -> None:
    """A beacon as CBOR against a space packet around the same number of bytes: not the same fields."""
    beacon = Beacon(3, 2, 4000, 1_800_000_000 * 10**9, Mode.NOMINAL, 1, 812, 231, 512, 88, *[7] * 7, 1 << 34, bytes(8))
    data = encode_message(beacon)
    rate = {"unit": "messages/s", "goal": ""}
    race.run("beacon as CBOR, encode", partial(encode_message, beacon), "packet/encode", data, **rate)
    race.run("beacon as CBOR, decode", partial(decode_message, data), "packet/decode", data, **rate)


def bundles(race: Race) -> None:
    """The same bundle, byte for byte; pyD3TN reads CRCs without checking them."""
    for length in (130, 16_384):
        bundle = Bundle(
            Eid(3, 2),
            Eid(7, 0),
            DTN_NONE,
            (700_000_000_000, 99),
            600_000,
            Random(3).randbytes(length),
            previous_node=Eid(5, 0),
            age_ms=3,
            hop_count=(64, 2),
        )
        data = encode_bundle(bundle)
        title, rate = f"bundle with {length} B", {"unit": "bundles/s"}
        race.run(f"{title}, encode", partial(encode_bundle, bundle), "bundles/encode", data, given=data.hex(), **rate)
        race.run(f"{title}, decode", partial(decode_bundle, data), "bundles/decode", data, given="3", **rate)


def flip_all(errors: IndependentErrors, frame: bytes) -> None:
    """Ours, frame by frame."""
    for _ in range(FLIP_FRAMES):
        errors.flip(frame)


def draw_each_bit(chance: np.random.Generator, symbols: NDArray[np.uint8], rate: float, times: int) -> None:
    """What anybody would write first: a draw for each bit."""
    for _ in range(times):
        (symbols ^ np.packbits(chance.random(8 * len(symbols), np.float32) < rate)).tobytes()


def flips(race: Race) -> None:
    """Bit errors on frames, against a draw for each bit: frame by frame, and all frames at once."""
    frame = Random(4).randbytes(SEGMENT_BYTES)
    one = np.frombuffer(frame, np.uint8)
    whole = np.tile(one, FLIP_FRAMES)
    megabytes = len(whole) / 1e6
    for rate in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        chance = np.random.default_rng(5)
        ours = partial(flip_all, IndependentErrors(rate, Random(6)), frame)
        theirs = {
            "a numpy draw for each bit": partial(draw_each_bit, chance, one, rate, FLIP_FRAMES),
            "the same for all frames at once": partial(draw_each_bit, chance, whole, rate, 1),
        }
        race.run_here(f"bit flips at {rate:g} in frames of {SEGMENT_BYTES} B", ours, theirs, megabytes, "MB/s")


def environment(name: str) -> str | None:
    """The interpreter of a peer's environment; None, with the reason printed, when it cannot be made."""
    script = HERE.parent / "scripts" / "peer_environment.py"
    made = subprocess.run([sys.executable, str(script), name], capture_output=True, text=True, check=False)
    if made.returncode:
        print(f"no peers of {name!r}: {made.stderr.strip()}")
        return None
    return made.stdout.strip()


def main() -> None:
    """Run all and print."""
    path = json_path(__doc__ or "")
    report = Report("wire")
    flips(Race(report, None))
    for name, races in (("coding", (reed_solomon, framing, messages)), ("pyd3tn", (bundles,))):
        python = environment(name)
        if python is None:
            continue
        with Peers(python) as peers:
            for run in races:
                run(Race(report, peers))
    if path is not None:
        report.write_json(path)


if __name__ == "__main__":
    main()
