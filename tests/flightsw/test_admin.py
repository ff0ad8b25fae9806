"""Status reports against bytes written out from RFC 9171 §6.1.1, round trips, and what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import BundleError
from flightsw.wire.admin import Reason, Status, StatusReport, decode_status_report, encode_status_report
from flightsw.wire.eids import DTN_NONE, Eid

# record: 82 01, report: 84 or 86, statuses: 84 and four of 81 f4, 81 f5 or 82 f5 time; reason; source; [time, sequence]
GOLDEN = {
    "82 01 84 84 81f5 81f4 81f4 81f4 00 82028203 07 82 1903e8 05": StatusReport(
        Eid(3, 7), (1000, 5), ((Status.RECEIVED, None),)
    ),
    "82 01 84 84 81f4 81f4 81f4 82f51907d0 01 82028203 07 82 1903e8 05": StatusReport(
        Eid(3, 7), (1000, 5), ((Status.DELETED, 2000),), Reason.LIFETIME_EXPIRED
    ),
    "82 01 86 84 81f4 81f5 82f50a 81f4 1863 82028203 07 82 00 05 1864 1832": StatusReport(
        Eid(3, 7), (0, 5), ((Status.FORWARDED, None), (Status.DELIVERED, 10)), 99, (100, 50)
    ),
    "82 01 84 84 81f4 81f4 81f4 81f4 00 820100 82 00 00": StatusReport(DTN_NONE, (0, 0), ()),
}


@pytest.mark.parametrize("encoded", GOLDEN)
def test_the_layout_is_the_one_of_the_standard(encoded):
    assert encode_status_report(GOLDEN[encoded]).hex() == encoded.replace(" ", "")
    assert decode_status_report(bytes.fromhex(encoded)) == GOLDEN[encoded]


NUMBERS = st.integers(0, 2**64 - 1)
STATUSES = st.dictionaries(st.sampled_from(Status), st.none() | NUMBERS).map(lambda found: tuple(sorted(found.items())))
REPORTS = st.builds(
    StatusReport,
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: Eid(*pair)),
    st.tuples(NUMBERS, NUMBERS),
    STATUSES,
    NUMBERS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
)


@given(REPORTS)
def test_a_report_comes_back(report):
    assert decode_status_report(encode_status_report(report)) == report


@given(REPORTS, st.data())
def test_a_cut_or_longer_report_is_refused(report, data):
    encoded = encode_status_report(report)
    with pytest.raises(BundleError):
        decode_status_report(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(BundleError, match="1 bytes after it"):
        decode_status_report(encoded + b"\0")


@given(REPORTS, st.integers(0, 2**16), st.integers(1, 255))
def test_only_bundle_errors_escape_from_damage(report, where, flips):
    damaged = bytearray(encode_status_report(report))
    damaged[where % len(damaged)] ^= flips
    with suppress(BundleError):  # most damage breaks the structure
        decode_status_report(bytes(damaged))


@given(st.binary(max_size=60))
def test_only_bundle_errors_escape_from_noise(data):
    with suppress(BundleError):  # noise is no record
        decode_status_report(data)


def test_statuses_of_later_standards_are_left_out():
    more = bytes.fromhex("82 01 84 86 81f5 81f4 81f4 81f4 81f5 82f507 00 82028203 07 82 00 05")
    assert decode_status_report(more).statuses == ((Status.RECEIVED, None),)


@pytest.mark.parametrize(
    ("encoded", "field"),
    [
        ("", "record"),
        ("83 01 84 00", "record: 3 elements"),
        ("82 02 84", "record type: 2"),
        ("82 01 85 84", "status report: 5 elements"),
        ("82 01 84 83 81f4 81f4 81f4", "status information: 3 elements"),
        ("82 01 84 91" + "81f4" * 17, "status information: 17 elements"),
        ("82 01 84 84 80", "status: 0 elements"),
        ("82 01 84 84 83f40000", "status: 3 elements"),
        ("82 01 84 84 81f6", "status indicator"),
        ("82 01 84 84 8101", "status indicator"),
        ("82 01 84 84 82f405", "status time: of something that is not asserted"),
        ("82 01 84 84 81f5 81f4 81f4 81f4 20", "reason"),
        ("82 01 84 84 81f5 81f4 81f4 81f4 00 8203820101", "source"),
        ("82 01 84 84 81f5 81f4 81f4 81f4 00 8202820307 83000000", "creation timestamp"),
        ("82 01 86 84 81f5 81f4 81f4 81f4 00 8202820307 820000 05", "fragment length"),
    ],
)
def test_a_wrong_record_is_refused_with_the_field(encoded, field):
    with pytest.raises(BundleError, match=field):
        decode_status_report(bytes.fromhex(encoded))
