"""Blocks of several bundles are taken apart at the bundles' own ends, and nothing else is."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import BundleError
from flightsw.wire.aggregates import AGGREGATE_BUNDLES_MAX, split_bundles
from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid


def encoded(payload: bytes) -> bytes:
    return encode_bundle(
        Bundle(Eid(2, 5), Eid(1, 300), DTN_NONE, (5, 70_000), 10_000, payload, age_ms=3, hop_count=(9, 1))
    )


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=6))
def test_bundles_one_behind_the_other_are_told_apart(payloads):
    bundles = [encoded(payload) for payload in payloads]
    assert split_bundles(b"".join(bundles)) == bundles


@given(st.binary(max_size=100), st.data())
def test_a_block_that_ends_amid_a_bundle_is_refused(payload, data):
    block = encoded(b"first") + encoded(payload)
    cut = data.draw(st.integers(len(encoded(b"first")) + 1, len(block) - 1))
    with pytest.raises(BundleError):
        split_bundles(block[:cut])


@pytest.mark.parametrize(
    "text", ["", "00", "9f", "9f81", "9fc000ff", "9fa0ff", "9f5f40ffff", "9f9fffff", "9f1cff", "9f9aff"]
)
def test_what_is_no_bundle_is_refused(text):
    with pytest.raises(BundleError):
        split_bundles(bytes.fromhex(text))


@given(st.binary(max_size=80))
def test_only_bundle_errors_escape_from_noise(data):
    for block in (data, b"\x9f" + data):
        with suppress(BundleError):  # noise is no bundle
            assert b"".join(split_bundles(block)) == block


def test_nesting_and_number_are_bounded():
    assert split_bundles(b"\x9f" + b"\x81" * 8 + b"\x00\xff")
    with pytest.raises(BundleError):
        split_bundles(b"\x9f" + b"\x81" * 9 + b"\x00\xff")
    assert len(split_bundles(b"\x9f\xff" * AGGREGATE_BUNDLES_MAX)) == AGGREGATE_BUNDLES_MAX
    with pytest.raises(BundleError, match="more than"):
        split_bundles(b"\x9f\xff" * (AGGREGATE_BUNDLES_MAX + 1))
