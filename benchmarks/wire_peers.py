"""The other side of `wire.py`: libraries that a Python user can install, timed in the environments that they need.

    python benchmarks/wire_peers.py coding|bundles

Reads requests from standard input, one JSON object on each line: `{"what": ..., "data": [hex, ...]}`. Answers each with
one line: seconds for a call by peer, and what it gave, so that the asker can see that it did the same work.
"""

import ctypes
import ctypes.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

PARITY_BYTES: Final = 32
WORD_BYTES: Final = 255
MEASURE_S: Final = 0.06
"""At least so long is each call repeated [s]."""

Calls = dict[str, Callable[[], object]]


def seconds(call: Callable[[], object]) -> float:
    """Time of one call: the best of three means [s]."""
    call()
    count, means = 1, []
    while len(means) < 3:
        start_s = time.perf_counter()
        for _ in range(count):
            call()
        took_s = time.perf_counter() - start_s
        if took_s < MEASURE_S / 3:
            count *= 2
        else:
            means.append(took_s / count)
    return min(means)


def shown(result: Any) -> str:
    """What a call gave, as hex where it is bytes."""
    return bytes(result).hex() if isinstance(result, bytes | bytearray | memoryview) else str(result)


# -- Reed-Solomon (255, 223) of CCSDS 131.0-B, conventional representation


class Libfec:
    """libfec by ctypes; a Debian package, not one of Python's."""

    def __init__(self, path: str) -> None:
        self._lib = ctypes.CDLL(path)
        self._lib.init_rs_char.restype = ctypes.c_void_p
        self._lib.encode_rs_char.argtypes = [ctypes.c_void_p] * 3
        self._lib.decode_rs_char.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._code = self._lib.init_rs_char(8, 0x187, 112, 11, PARITY_BYTES, 0)
        self._parity = ctypes.create_string_buffer(PARITY_BYTES)

    def encode(self, data: bytes) -> bytes:
        """Data and parity."""
        self._lib.encode_rs_char(self._code, data, self._parity)
        return data + self._parity.raw

    def decode(self, word: bytes) -> bytes:
        """The data, corrected."""
        received = ctypes.create_string_buffer(word, WORD_BYTES)
        assert self._lib.decode_rs_char(self._code, received, None, 0) >= 0
        return received.raw[: WORD_BYTES - PARITY_BYTES]


def reed_solomon(what: str, data: bytes) -> Calls:
    """Encoders or decoders of one code word."""
    import galois
    import numpy as np
    import reed_solomon_ccsds
    import reedsolo

    old = reedsolo.RSCodec(PARITY_BYTES, nsize=WORD_BYTES, fcr=112, prim=0x187, generator=173)
    field = galois.GF(2**8, irreducible_poly=0x187)
    alpha = field.primitive_element**11
    new = galois.ReedSolomon(WORD_BYTES, WORD_BYTES - PARITY_BYTES, field=field, alpha=alpha, c=112)
    symbols = field(np.frombuffer(data, np.uint8))
    calls: Calls
    if what == "encode":
        calls = {
            "reedsolo": lambda: bytes(old.encode(data)),
            "galois": lambda: new.encode(symbols).tobytes(),
            "reed-solomon-ccsds": lambda: reed_solomon_ccsds.encode(data, False),
        }
    else:
        calls = {
            "reedsolo": lambda: bytes(old.decode(data)[0]),
            "galois": lambda: new.decode(symbols).tobytes(),
            "reed-solomon-ccsds": lambda: bytes(reed_solomon_ccsds.decode(data, False)[1]),
        }
    path = ctypes.util.find_library("fec")
    if path is not None:
        fec = Libfec(path)
        calls["libfec by ctypes"] = lambda: fec.encode(data) if what == "encode" else fec.decode(data)
    return calls


# -- frames, checks, packets


def framing(what: str, data: bytes) -> Calls:
    """Stuffed and checked frames of the same kind, by other libraries."""
    import corncobs
    import google_crc32c
    import sliplib

    def corn_encode() -> bytes:
        return corncobs.encode(data + google_crc32c.value(data).to_bytes(4, "big")) + b"\0"

    def corn_decode() -> bytes:
        checked = corncobs.decode(data[:-1])
        assert google_crc32c.value(checked[:-4]) == int.from_bytes(checked[-4:], "big")
        return checked[:-4]

    def slip_encode() -> bytes:
        return sliplib.encode(data + google_crc32c.value(data).to_bytes(4, "big"))

    if what == "encode":
        return {"corncobs + google-crc32c": corn_encode, "sliplib + google-crc32c": slip_encode}
    return {"corncobs + google-crc32c": corn_decode}


def crc(data: bytes) -> Calls:
    """CRC-32C."""
    import crc32c_rs
    import crcmod.predefined
    import fastcrc
    import google_crc32c

    generated = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
    return {
        "google-crc32c": lambda: google_crc32c.value(data),
        "crc32c-rs": lambda: crc32c_rs.crc32c(data),
        "fastcrc": lambda: fastcrc.crc32.iscsi(data),
        "crcmod-plus": lambda: generated(data),
    }


def packet(what: str, data: bytes) -> Calls:
    """A space packet with the same bytes as payload: other fields, the same errand."""
    from spacepackets import PacketType, SpacePacket, SpHeader

    def pack() -> bytes:
        header = SpHeader(PacketType.TM, 3, 7, len(data) - 1)
        return bytes(SpacePacket(header, None, data).pack())

    packed = pack()
    return {"spacepackets": pack} if what == "encode" else {"spacepackets": lambda: SpHeader.unpack(packed).apid}


# -- bundles


def bundles(what: str, data: bytes) -> Calls:
    """The same bundle by pyD3TN."""
    from pyd3tn.bundle7 import Bundle

    parsed = Bundle.parse(data)
    return {"pyD3TN": lambda: bytes(parsed)} if what == "encode" else {"pyD3TN": lambda: len(Bundle.parse(data).blocks)}


def calls_for(request: dict[str, Any]) -> Calls:
    """The calls that a request asks for."""
    kind, _, what = request["what"].partition("/")
    data = bytes.fromhex(request["data"])
    if kind == "rs":
        return reed_solomon(what, data)
    if kind == "framing":
        return framing(what, data)
    if kind == "crc":
        return crc(data)
    if kind == "packet":
        return packet(what, data)
    assert kind == "bundles", f"{kind}: nobody measures that"
    return bundles(what, data)


def main() -> None:
    """Answer until the input ends."""
    known: dict[str, Calls] = {}
    for line in sys.stdin:
        calls = known.setdefault(line, {}) or calls_for(json.loads(line))
        known[line] = calls
        answer = {name: [seconds(call), shown(call())] for name, call in calls.items()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
