import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import ConfigError, MessageError
from flightsw.wire.eids import DTN_NONE, NODE_MAX, Eid, encode_eid, parse_eid, read_eid

NUMBERS = st.integers(0, NODE_MAX)
EIDS = st.builds(lambda node, service: Eid(node, service), NUMBERS, NUMBERS) | st.just(DTN_NONE)


@given(EIDS)
def test_text_and_bytes_give_the_endpoint_back(eid):
    assert parse_eid(str(eid)) == eid
    encoded = encode_eid(eid)
    assert read_eid(b"?" + encoded + b"?", 1, "source") == (eid, 1 + len(encoded))


def test_the_encoding_is_the_one_of_the_standard():
    assert str(Eid(3, 7)) == "ipn:3.7"
    assert encode_eid(Eid(3, 7)).hex() == "8202820307"
    assert str(DTN_NONE) == "dtn:none"
    assert encode_eid(DTN_NONE).hex() == "820100"


def test_the_null_endpoint_is_not_node_zero():
    assert Eid(0, 0) != DTN_NONE


@pytest.mark.parametrize(
    "text",
    ["", "ipn:3", "ipn:3.7.1", "ipn:03.7", "ipn:-3.7", "ipn:3.7 ", "dtn://node/x", "IPN:3.7", "ipn:٣.7",
     "ipn:18446744073709551616.0"],
)  # fmt: skip
def test_other_text_is_refused_with_what_was_expected(text):
    with pytest.raises(ConfigError, match=r"expected ipn:<node>.<service>"):
        parse_eid(text)


def test_longer_heads_than_needed_are_taken():
    assert read_eid(bytes.fromhex("9802 1802 9802 1803 190007"), 0, "source") == (Eid(3, 7), 11)


@pytest.mark.parametrize(
    "encoded",
    [
        "820101",
        "82016161",
        "8303820307",
        "8302820307",
        "820283030701",
        "8203820307",
        "8202",
        "820307",
        "82",
        "",
        "9f01",
    ],
)
def test_other_endpoints_are_refused_with_the_field(encoded):
    with pytest.raises(MessageError, match="source: "):
        read_eid(bytes.fromhex(encoded), 0, "source")
