"""Endpoint identifiers: who sends and receives bundles.

`ipn:node.service` (RFC 9758; CBOR `[2, [node, service]]`) names one service of one node; `dtn:none` (CBOR `[1, 0]`)
names nobody, for example where no report is wanted (RFC 9171 §4.2.5.1).
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from flightsw.errors import ConfigError, MessageError
from flightsw.wire.cbor import ARRAY, UNSIGNED, encode_head, read_head

SCHEME_DTN: Final = 1
SCHEME_IPN: Final = 2
"""URI scheme codes, RFC 9171 §9.6."""

NODE_MAX: Final = 2**64 - 1
"""Largest node or service number: CBOR's largest unsigned integer (RFC 9171 §4.2.5.1.2)."""

_TEXT: Final = re.compile(r"ipn:(0|[1-9][0-9]{0,19})\.(0|[1-9][0-9]{0,19})")


class Eid(NamedTuple):
    """An endpoint, `Eid(3, 7)` for ipn:3.7; `str()` gives its URI."""

    node: int
    service: int
    scheme: int = SCHEME_IPN

    def __str__(self) -> str:
        return "dtn:none" if self.scheme == SCHEME_DTN else f"ipn:{self.node}.{self.service}"


DTN_NONE: Final = Eid(0, 0, SCHEME_DTN)
"""The null endpoint."""


def parse_eid(text: str) -> Eid:
    """The endpoint of a URI, `ipn:3.7` or `dtn:none`.

    Raises:
        ConfigError: the text is neither.
    """
    if text == "dtn:none":
        return DTN_NONE
    match = _TEXT.fullmatch(text)
    if match is None or max(node := int(match[1]), service := int(match[2])) > NODE_MAX:
        raise ConfigError(f"endpoint {text!r}: expected ipn:<node>.<service> (for example ipn:3.7) or dtn:none")
    return Eid(node, service)


@lru_cache(maxsize=4096)  # a fleet has fewer endpoints in use at a time, and they repeat in every bundle
def encode_eid(eid: Eid) -> bytes:
    """The endpoint as CBOR."""
    if eid.scheme == SCHEME_DTN:
        return b"\x82\x01\x00"
    return b"\x82\x02\x82" + encode_head(UNSIGNED, eid.node) + encode_head(UNSIGNED, eid.service)


def read_eid(data: bytes, at: int, field: str) -> tuple[Eid, int]:
    """The endpoint at the offset, and the offset after it.

    Raises:
        MessageError: it is neither `[2, [node, service]]` nor `[1, 0]`; names the field.
    """
    start = data[at : at + 3]
    if start == b"\x82\x01\x00":
        return DTN_NONE, at + 3
    if start == b"\x82\x02\x82":
        node, at = read_head(data, at + 3, UNSIGNED, field)
        service, at = read_head(data, at, UNSIGNED, field)
        return Eid(node, service), at
    count, at = read_head(data, at, ARRAY, field)
    scheme, at = read_head(data, at, UNSIGNED, field)
    if count == 2 and scheme == SCHEME_DTN:
        name, at = read_head(data, at, UNSIGNED, field)
        if name == 0:
            return DTN_NONE, at
    elif count == 2 and scheme == SCHEME_IPN:
        numbers_count, at = read_head(data, at, ARRAY, field)
        if numbers_count == 2:
            node, at = read_head(data, at, UNSIGNED, field)
            service, at = read_head(data, at, UNSIGNED, field)
            return Eid(node, service), at
    raise MessageError(f"{field}: neither ipn:node.service nor dtn:none")
