"""Bundle Protocol Security: the examples of RFC 9173, its rules, and hostile blocks."""

import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import BundleError
from flightsw.wire import confidentiality, integrity
from flightsw.wire.bundles import CRC_32C, CRC_NONE, Bundle, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.confidentiality import AesVariant, decrypt, encrypt, unwrap_key, wrap_key
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.integrity import ShaVariant, integrity_input, sign, verify
from flightsw.wire.security import (
    BLOCK_CONFIDENTIALITY,
    BLOCK_INTEGRITY,
    SCOPE_ALL,
    SecurityBlock,
    decode_security,
    encode_security,
    scoped,
    security_blocks,
    target_block,
)

# RFC 9173 appendix A. The examples share primary block, payload and keys.
PRIMARY = bytes.fromhex("88070000820282010282028202018202820201820018281a000f4240")
TEXT = b"Ready to generate a 32-byte payload"
PAYLOAD = bytes.fromhex("85010100005823") + TEXT
AGE = bytes.fromhex("85070200004319012c")
ORIGINAL = b"\x9f" + PRIMARY + PAYLOAD + b"\xff"
ORIGINAL_AGED = b"\x9f" + PRIMARY + AGE + PAYLOAD + b"\xff"
MAC_KEY = bytes.fromhex("1a2b1a2b1a2b1a2b1a2b1a2b1a2b1a2b")
KEY_128 = b"qwertyuiopasdfgh"
KEY_256 = b"qwertyuiopasdfghqwertyuiopasdfgh"
WRAPPING_KEY = b"abcdefghijklmnop"
IV = b"Twelve121212"

A1_IPPT = "005823526561647920746f2067656e657261746520612033322d62797465207061796c6f6164"
A1_TAG = (
    "3bdc69b3a34a2b5d3a8554368bd1e808f606219d2a10a846eae3886ae4ecc83c"
    "4ee550fdfb1cc636b904e2f1a73e303dcd4b6ccece003e95e8164dcc89a156e1"
)
A1_FINAL = (
    "9f88070000820282010282028202018202820201820018281a000f4240850b0200"
    "005856810101018202820201828201078203008181820158403bdc69b3a34a2b5d3a"
    "8554368bd1e808f606219d2a10a846eae3886ae4ecc83c4ee550fdfb1cc636b904e2"
    "f1a73e303dcd4b6ccece003e95e8164dcc89a156e185010100005823526561647920"
    "746f2067656e657261746520612033322d62797465207061796c6f6164ff"
)
A2_WRAPPED = "69c411276fecddc4780df42c8a2af89296fabf34d7fae700"
A2_FINAL = (
    "9f88070000820282010282028202018202820201820018281a000f4240850c0201"
    "0058508101020182028202018482014c5477656c7665313231323132820201820358"
    "1869c411276fecddc4780df42c8a2af89296fabf34d7fae7008204008181820150ef"
    "a4b5ac0108e3816c5606479801bc04850101000058233a09c1e63fe23a7f66a59c73"
    "03837241e070b02619fc59c5214a22f08cd70795e73e9aff"
)
A3_IPPT_PRIMARY = "00581c88070000820282010282028202018202820201820018281a000f4240"
A3_IPPT_AGE = "004319012c"
A3_FINAL = (
    "9f88070000820282010282028202018202820201820018281a000f4240850b0300"
    "00585c8200020101820282030082820105820300828182015820cac6ce8e4c5dae57"
    "988b757e49a6dd1431dc04763541b2845098265bc817241b81820158203ed614c0d9"
    "7f49b3633627779aa18a338d212bf3c92b97759d9739cd50725596850c0401005834"
    "8101020182028202018382014c5477656c7665313231323132820201820400818182"
    "0150efa4b5ac0108e3816c5606479801bc0485070200004319012c85010100005823"
    "3a09c1e63fe23a7f66a59c7303837241e070b02619fc59c5214a22f08cd70795e73e"
    "9aff"
)
A4_IPPT = (
    "0788070000820282010282028202018202820201820018281a000f4240010100"
    "0b03005823526561647920746f2067656e657261746520612033322d62797465207061796c6f6164"
)
A4_BIB = (
    "81010101820282020182820106820307818182015830f75fe4c37f76f046165855bd5ff72fbf"
    "d4e3a64b4695c40e2b787da005ae819f0a2e30a2e8b325527de8aefb52e73d71"
)
A4_AAD_BIB = "0788070000820282010282028202018202820201820018281a000f42400b03000c0201"
A4_AAD_PAYLOAD = "0788070000820282010282028202018202820201820018281a000f42400101000c0201"
A4_FINAL = (
    "9f88070000820282010282028202018202820201820018281a000f4240850b0300"
    "005846438ed6208eb1c1ffb94d952175167df0902902064a2983910c4fb2340790bf"
    "420a7d1921d5bf7c4721e02ab87a93ab1e0b75cf62e4948727c8b5dae46ed2af0543"
    "9b88029191850c0201005849820301020182028202018382014c5477656c76653132"
    "313231328202038204078281820150220ffc45c8a901999ecc60991dd78b29818201"
    "50d2c51cb2481792dae8b21d848cede99b8501010000582390eab6457593379298a8"
    "724e16e61f837488e127212b59ac91f8a86287b7d07630a122ff"
)

SOURCE = Eid(2, 1)


def read(data: bytes) -> Bundle:
    """A bundle, with high numbers for the blocks that it does not have: the examples number theirs from 2."""
    bundle = decode_bundle(data)
    age = bundle.heads[1] if bundle.age_ms is not None else (21, 0, CRC_NONE)
    return replace(bundle, heads=((20, 0, CRC_NONE), age, (22, 0, CRC_NONE)))


def same_blocks(data: bytes, expected: bytes) -> bool:
    """Whether two bundles have the same bytes in each block; extension blocks may stand in any order."""
    one, other = decode_bundle(data), decode_bundle(expected)
    assert one.primary_bytes == other.primary_bytes
    assert one.payload_block_bytes == other.payload_block_bytes
    assert len(data) == len(expected)
    return sorted(one.blocks) == sorted(other.blocks) and one.heads[1] == other.heads[1] and one.age_ms == other.age_ms


def test_example_1_of_rfc_9173_simple_integrity() -> None:
    bundle = read(ORIGINAL)
    signed = sign(bundle, (1,), number=2, source=SOURCE, key=MAC_KEY, variant=ShaVariant.HMAC_512, scope=0)
    assert encode_bundle(signed).hex() == A1_FINAL
    block = signed.blocks[0]
    assert integrity_input(bundle, 1, 0, block).hex() == A1_IPPT
    assert decode_security(block.data).results == (((1, bytes.fromhex(A1_TAG)),),)
    received = decode_bundle(bytes.fromhex(A1_FINAL))
    assert verify(received, received.blocks[0], MAC_KEY)
    assert not verify(received, received.blocks[0], MAC_KEY[::-1])


def test_example_2_of_rfc_9173_simple_confidentiality_with_key_wrap() -> None:
    wrapped = wrap_key(WRAPPING_KEY, KEY_128)
    assert wrapped.hex() == A2_WRAPPED
    sealed = encrypt(
        read(ORIGINAL), (1,), number=2, source=SOURCE, key=KEY_128, iv=IV, variant=AesVariant.A128GCM, scope=0,
        wrapped_key=wrapped,
    )  # fmt: skip
    assert encode_bundle(sealed).hex() == A2_FINAL
    received = decode_bundle(bytes.fromhex(A2_FINAL))
    key = unwrap_key(WRAPPING_KEY, bytes(decode_security(received.blocks[0].data).parameter(3)))  # type: ignore[arg-type]
    opened = decrypt(received, received.blocks[0], key)
    assert opened is not None
    assert encode_bundle(opened) == ORIGINAL


def test_example_3_of_rfc_9173_security_blocks_from_multiple_sources() -> None:
    bundle = read(ORIGINAL_AGED)
    sealed = encrypt(
        bundle, (1,), number=4, source=SOURCE, key=KEY_128, iv=IV, variant=AesVariant.A128GCM, scope=0
    )  # fmt: skip
    done = sign(sealed, (0, 2), number=3, source=Eid(3, 0), key=MAC_KEY, scope=0)
    assert same_blocks(encode_bundle(done), bytes.fromhex(A3_FINAL))
    received = decode_bundle(bytes.fromhex(A3_FINAL))
    (signature,), (secret,) = (security_blocks(received, kind) for kind in (BLOCK_INTEGRITY, BLOCK_CONFIDENTIALITY))
    assert integrity_input(received, 0, 0, signature).hex() == A3_IPPT_PRIMARY
    assert integrity_input(received, 2, 0, signature).hex() == A3_IPPT_AGE
    assert verify(received, signature, MAC_KEY)
    assert scoped(received, 0, target_block(received, 1), secret) == b"\0"
    opened = decrypt(received, secret, KEY_128)
    assert opened is not None
    assert opened.payload == TEXT


def test_example_4_of_rfc_9173_security_blocks_with_full_scope() -> None:
    bundle = read(ORIGINAL)
    signed = sign(bundle, (1,), number=3, source=SOURCE, key=MAC_KEY, variant=ShaVariant.HMAC_384)
    assert integrity_input(bundle, 1, SCOPE_ALL, signed.blocks[0]).hex() == A4_IPPT
    assert signed.blocks[0].data.hex() == A4_BIB
    sealed = encrypt(signed, (3, 1), number=2, source=SOURCE, key=KEY_256, iv=IV)
    assert same_blocks(encode_bundle(sealed), bytes.fromhex(A4_FINAL))
    received = decode_bundle(bytes.fromhex(A4_FINAL))
    (secret,) = security_blocks(received, BLOCK_CONFIDENTIALITY)
    assert scoped(received, SCOPE_ALL, target_block(received, 3), secret).hex() == A4_AAD_BIB
    assert scoped(received, SCOPE_ALL, target_block(received, 1), secret).hex() == A4_AAD_PAYLOAD
    opened = decrypt(received, secret, KEY_256)
    assert opened is not None
    assert opened.payload == TEXT
    assert verify(opened, opened.blocks[0], MAC_KEY)


def test_what_is_protected_loses_its_crc_and_what_surrounds_it_keeps_its_own() -> None:
    bundle = Bundle(Eid(1, 2), SOURCE, DTN_NONE, (0, 40), 1000, TEXT, age_ms=5)
    signed = decode_bundle(encode_bundle(sign(bundle, (1,), number=6, source=SOURCE, key=MAC_KEY)))
    assert (signed.crc_type, signed.payload_crc_type) == (CRC_32C, CRC_NONE)
    assert verify(signed, signed.blocks[0], MAC_KEY)


bundles = st.builds(
    Bundle,
    destination=st.builds(Eid, st.integers(1, 2**40), st.integers(0, 99), st.just(2)),
    source=st.just(SOURCE),
    report_to=st.just(DTN_NONE),
    creation=st.tuples(st.integers(0, 2**40), st.integers(0, 2**63)),
    lifetime_ms=st.integers(1, 2**40),
    payload=st.binary(max_size=300),
    age_ms=st.none() | st.integers(0, 2**33),
    hop_count=st.none() | st.tuples(st.integers(1, 255), st.integers(0, 300)),
)
keys = st.binary(min_size=32, max_size=32)


@given(bundles, keys, st.sampled_from(ShaVariant), st.integers(0, 7))
def test_what_is_signed_verifies_and_no_other_key_does(
    bundle: Bundle, key: bytes, variant: ShaVariant, scope: int
) -> None:
    targets = (0, 1) if bundle.hop_count is None else (1, 4)
    signed = sign(bundle, targets, number=6, source=SOURCE, key=key, variant=variant, scope=scope)
    received = decode_bundle(encode_bundle(signed))
    assert verify(received, received.blocks[0], key)
    assert not verify(received, received.blocks[0], hmac.digest(key, b"", "sha256"))


@given(bundles, keys, st.sampled_from(AesVariant), st.integers(0, 7), st.data())
def test_what_is_encrypted_after_signing_opens_whole_and_any_change_is_found(
    bundle: Bundle, key: bytes, variant: AesVariant, scope: int, data: st.DataObject
) -> None:
    key = key[:16] if variant is AesVariant.A128GCM else key
    signed = sign(bundle, (1,), number=6, source=SOURCE, key=key)
    sealed = encrypt(
        signed, (1, 6), number=7, source=SOURCE, key=key, iv=bytes(12), variant=variant, scope=scope
    )  # fmt: skip
    received = decode_bundle(encode_bundle(sealed))
    (secret,) = security_blocks(received, BLOCK_CONFIDENTIALITY)
    opened = decrypt(received, secret, key)
    assert opened is not None
    assert opened.payload == bundle.payload
    assert verify(opened, opened.blocks[0], key)
    if received.payload:
        at = data.draw(st.integers(0, len(received.payload) - 1))
        changed = bytearray(received.payload)
        changed[at] ^= 1
        assert decrypt(replace(received, payload=bytes(changed)), secret, key) is None


@pytest.mark.parametrize("scope", range(8))
def test_the_scope_flags_say_what_may_not_change(scope: int) -> None:
    bundle = decode_bundle(ORIGINAL)
    signed = sign(bundle, (1,), number=2, source=SOURCE, key=KEY_256, scope=scope)
    block = signed.blocks[0]
    moved = replace(signed, destination=Eid(9, 9))
    assert verify(moved, block, KEY_256) is not bool(scope & 1)
    flagged = replace(signed, payload_flags=1)
    assert verify(flagged, block, KEY_256) is not bool(scope & 2)
    renumbered = block._replace(number=9)
    assert verify(replace(signed, blocks=(renumbered,)), renumbered, KEY_256) is not bool(scope & 4)


def test_what_rfc_9172_forbids_is_refused() -> None:
    bundle = decode_bundle(ORIGINAL_AGED)
    signed = sign(bundle, (1,), number=3, source=SOURCE, key=KEY_256)
    sealed = encrypt(signed, (1,), number=4, source=SOURCE, key=KEY_256, iv=IV)
    options = {"source": SOURCE, "key": KEY_256}
    with pytest.raises(BundleError, match="signed already"):
        sign(signed, (1,), number=5, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="comes after signing"):
        sign(encrypt(bundle, (1,), number=4, iv=IV, **options), (1,), number=5, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="is a security block"):
        sign(sealed, (4,), number=5, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="no block 9"):
        sign(bundle, (9,), number=5, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="must not be encrypted"):
        encrypt(bundle, (0,), number=5, iv=IV, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="must not be encrypted"):
        encrypt(sealed, (4,), number=5, iv=IV, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="encrypted already"):
        encrypt(sealed, (1,), number=5, iv=IV, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="shares no target"):
        encrypt(sign(bundle, (2,), number=3, **options), (3, 1), number=5, iv=IV, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="type 7 cannot be encrypted"):
        encrypt(bundle, (2,), number=5, iv=IV, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ("", "targets"),
        ("80", "targets: 0"),
        ("8201010101820282020180828080", "named twice"),
        ("98ff", "targets: 255"),
        ("8101030082028202018180", "context: 3"),
        ("81012000820282020181", "context"),
        ("8101010282028202018180", "flags: 2"),
        ("810101008203820201818182014100", "source"),
        ("8101010182028202018080", "results: of 0 targets"),
        ("8101010182028202018982010781", "parameters: 9"),
        ("81010101820282020181830107008181820141aa", "pairs are expected"),
        ("81010101820282020182820107820107818180", "there twice"),
        ("8101010082028202018181820141aa00", "1 bytes after"),
        ("81010100820282020181818201a0", "value"),
        ("8101010082028202018182820141aa", "results"),
    ],
)
def test_a_security_block_that_is_none_is_refused_with_its_field(data: str, field: str) -> None:
    with pytest.raises(BundleError, match=field):
        decode_security(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("parameters", "results", "field"),
    [
        (((1, 4),), ((1, bytes(32)),), "SHA variant: 4"),
        (((1, b"5"),), ((1, bytes(32)),), "SHA variant"),
        (((1, 5), (3, 8)), ((1, bytes(32)),), "scope flags: 8"),
        (((1, 5), (3, b"")), ((1, bytes(32)),), "scope flags"),
        (((1, 5),), ((1, bytes(31)),), "31 bytes, expected 32"),
        (((1, 5),), (), "one byte string"),
        (((1, 5),), ((2, bytes(32)),), "one byte string"),
        (((1, 5),), ((1, 7),), "one byte string"),
    ],
)
def test_an_integrity_block_with_wrong_contents_is_refused(
    parameters: tuple[tuple[int, int | bytes], ...], results: tuple[tuple[int, int | bytes], ...], field: str
) -> None:
    data = encode_security(SecurityBlock((1,), 1, SOURCE, parameters, (results,)))
    block = CanonicalBlock(BLOCK_INTEGRITY, 2, 0, CRC_NONE, data)
    with pytest.raises(BundleError, match=field):
        verify(replace(decode_bundle(ORIGINAL), blocks=(block,)), block, KEY_256)


@pytest.mark.parametrize(
    ("targets", "parameters", "field"),
    [
        ((1,), ((2, 3),), "IV"),
        ((1,), ((1, 7), (2, 3)), "IV"),
        ((1,), ((1, bytes(7)), (2, 3)), "IV"),
        ((1,), ((1, bytes(17)), (2, 3)), "IV"),
        ((1,), ((1, IV), (2, 2)), "AES variant: 2"),
        ((1,), ((1, IV), (2, 1)), "does not fit a key of 32"),
        ((0,), ((1, IV), (2, 3)), "primary block"),
        ((5,), ((1, IV), (2, 3)), "no block 5"),
        ((1,), ((1, IV), (4, 9)), "scope flags: 9"),
    ],
)
def test_a_confidentiality_block_with_wrong_contents_is_refused(
    targets: tuple[int, ...], parameters: tuple[tuple[int, int | bytes], ...], field: str
) -> None:
    data = encode_security(SecurityBlock(targets, 2, SOURCE, parameters, (((1, bytes(16)),),)))
    block = CanonicalBlock(BLOCK_CONFIDENTIALITY, 2, 1, CRC_NONE, data)
    with pytest.raises(BundleError, match=field):
        decrypt(replace(decode_bundle(ORIGINAL), blocks=(block,)), block, KEY_256)


def test_a_block_of_one_context_is_not_taken_for_the_other() -> None:
    bundle = decode_bundle(bytes.fromhex(A3_FINAL))
    signature, secret = bundle.blocks
    with pytest.raises(BundleError, match="no BIB-HMAC-SHA2"):
        verify(bundle, secret, KEY_256)
    with pytest.raises(BundleError, match="no BCB-AES-GCM"):
        decrypt(bundle, signature, KEY_256)


@given(st.binary(max_size=80) | st.sampled_from([A1_FINAL, A3_FINAL, A4_BIB]).map(bytes.fromhex), st.data())
def test_hostile_security_blocks_raise_bundle_errors_only(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 4)) if changed else 0):
        changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    bundle = decode_bundle(ORIGINAL_AGED)
    for kind, work in ((BLOCK_INTEGRITY, verify), (BLOCK_CONFIDENTIALITY, decrypt)):
        block = CanonicalBlock(kind, 9, 0, CRC_NONE, bytes(changed))
        try:
            work(replace(bundle, blocks=(block,)), block, KEY_256)  # type: ignore[operator]
        except BundleError:
            continue  # refused in words


@given(
    st.builds(
        SecurityBlock,
        st.just((1, 2)),
        st.sampled_from([1, 2]),
        st.builds(Eid, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.just(2)),
        st.lists(st.integers(0, 2**64 - 1) | st.binary(max_size=70), max_size=8).map(lambda v: tuple(enumerate(v))),
        st.just((((1, b"a"),), ((1, b"b"), (2, 7)))),
    )
)
def test_a_security_block_reads_as_it_was_written(block: SecurityBlock) -> None:
    assert decode_security(encode_security(block)) == block


@pytest.mark.parametrize("wrapped", [b"", bytes(7), bytes(24), bytes(40), bytes(41)])
def test_a_key_that_was_not_wrapped_by_this_key_is_refused(wrapped: bytes) -> None:
    with pytest.raises(BundleError, match="did not wrap"):
        unwrap_key(KEY_256, wrapped)


def test_modules_of_both_contexts_take_their_numbers_from_the_registry() -> None:
    assert [integrity.PARAMETER_SHA_VARIANT, integrity.PARAMETER_WRAPPED_KEY, integrity.PARAMETER_SCOPE] == [1, 2, 3]
    own = confidentiality
    assert [own.PARAMETER_IV, own.PARAMETER_VARIANT, own.PARAMETER_WRAPPED_KEY, own.PARAMETER_SCOPE] == [1, 2, 3, 4]
