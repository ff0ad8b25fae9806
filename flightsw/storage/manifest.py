"""Manifests of software images: what an image is, for whom, and who vouches for it. Shared by flight and ground.

A signed manifest is a CBOR array `[body, key id, signature]`:

| field | bytes | meaning |
|---|---|---|
| body | 1 to 512 | a manifest as deterministic CBOR, the fields of `Manifest` in order |
| key id | 8 | fingerprint of the public key |
| signature | 64 | Ed25519 (RFC 8032) over `SIGNED_PREFIX` and the body |

The signature is over the very bytes that travel, and a body that would be written otherwise is refused: one manifest
has one form. Layout: ours.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

import msgspec

from flightsw.errors import ConfigError, MessageError
from flightsw.wire import cbor
from flightsw.wire.messages import Digest

IMAGE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Largest image [bytes]: thirty times the present wheel; it stands on the disk up to three times while it is staged."""
SIGNED_BYTES_MAX: Final = 1024
"""Longest signed manifest [bytes]: four times the longest that can be written."""
SERIAL_MAX: Final = (1 << 62) - 1
"""Largest serial number: a manifest a nanosecond for a century, and still an integer of 64 bits."""
KEY_BYTES: Final = 32
"""Of a private or public key [bytes]: Ed25519 (RFC 8032 §5.1.5)."""
SIGNED_PREFIX: Final = b"flatrack image manifest 1\0"
"""Before the signed bytes, so that a signature of something else never passes as one of a manifest."""

_VERSION: Final = r"^(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})\Z"
_REPORT: Final = re.compile(
    r"^state=([A-Z_]{1,16}) version=(\S{1,32}) slot=([FAB-]) serial=([0-9]{1,19}) ready=([01]) reason=(.*)$", re.DOTALL
)
REASON_CHARACTERS_MAX: Final = 256
"""Longest reason in a report: with the other fields it fits the detail of a verification."""

Version = Annotated[str, msgspec.Meta(pattern=_VERSION)]
Target = Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")]


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an image is, and which nodes may take it."""

    target: Target
    """What boots it: `wheel` for a Python environment, `simulated` for a virtual node."""
    version: Version
    image: Digest
    """Name of the image among the objects (`flightsw.objects.digest`)."""
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=IMAGE_BYTES_MAX)]
    serial: Annotated[int, msgspec.Meta(ge=1, le=SERIAL_MAX)]
    """Rises with each manifest that is signed: a node refuses one that is below the last it accepted."""
    minimum_version: Version
    """A node that runs an older version refuses."""
    minimum_launcher: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
    """A node whose launcher is older refuses."""
    allow_downgrade: bool
    """Whether a version that is not above the running one may be taken."""
    dictionary: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    """Digest of the command dictionary that the image speaks."""


class SignedManifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A manifest as it travels."""

    body: Annotated[bytes, msgspec.Meta(min_length=1, max_length=512)]
    key_id: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    def encode(self) -> bytes:
        """The bytes that travel."""
        return cbor.dumps(msgspec.to_builtins(self, builtin_types=(bytes,)), SIGNED_BYTES_MAX)


def encode_manifest(manifest: Manifest) -> bytes:
    """The body of a signed manifest."""
    return cbor.dumps(msgspec.to_builtins(manifest, builtin_types=(bytes,)))


def decode_manifest(data: bytes) -> tuple[SignedManifest, Manifest]:
    """A signed manifest and what it says; the signature is not checked here.

    Raises:
        MessageError: too long, not CBOR, a field out of its range, or not in the one form; names the field.
    """
    try:
        signed = msgspec.convert(cbor.loads(data, SIGNED_BYTES_MAX), SignedManifest, builtin_types=(bytes,))
        manifest = msgspec.convert(cbor.loads(signed.body), Manifest, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"manifest: {error}") from None
    if encode_manifest(manifest) != signed.body or signed.encode() != data:
        raise MessageError("manifest: not in its deterministic form")
    return signed, manifest


def sign_manifest(manifest: Manifest, private_key: bytes) -> SignedManifest:
    """Vouch for a manifest.

    Raises:
        ConfigError: a field of the manifest is out of its range, or the key has another length.
    """
    # Loaded when first needed: it would take a twentieth of a second of every boot.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if len(private_key) != KEY_BYTES:
        raise ConfigError(f"private key: {len(private_key)} bytes, expected {KEY_BYTES}")
    body = encode_manifest(manifest)
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    signed = SignedManifest(body, key_id(public_key_of(private_key)), key.sign(SIGNED_PREFIX + body))
    try:
        decode_manifest(signed.encode())
    except MessageError as error:
        raise ConfigError(str(error)) from None
    return signed


def signature_fault(signed: SignedManifest, public_keys: Iterable[bytes]) -> str | None:
    """Why nobody that is trusted vouches for a manifest, or None.

    Args:
        signed: the manifest.
        public_keys: of those that are trusted, 32 bytes each.
    """
    keys = {key_id(key): key for key in public_keys}
    if not keys:
        return "no update key is provisioned here"
    public_key = keys.get(signed.key_id)
    if public_key is None:
        return f"signed with the unknown key {signed.key_id.hex()}"
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed.signature, SIGNED_PREFIX + signed.body)
    except (InvalidSignature, ValueError):  # ValueError: the key is no point of the curve
        return f"the signature of key {signed.key_id.hex()} does not hold"
    return None


def public_key_of(private_key: bytes) -> bytes:
    """The public key of a private one, 32 bytes each."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def key_id(public_key: bytes) -> bytes:
    """What a public key is called: 8 bytes of a digest."""
    return hashlib.blake2b(public_key, digest_size=8, person=b"update key").digest()


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers that compare; what is no version of ours is below all that are."""
    return tuple(int(part) for part in version.split(".")) if re.match(_VERSION, version) else ()


class UpdateReport(NamedTuple):
    """Where a node's update stands: the detail of the answer to UPDATE.QUERY."""

    state: str
    version: str
    """That runs."""
    slot: str
    serial: int
    """Of the last accepted manifest; 0 without one."""
    is_ready: bool
    """Whether a trial has passed all that a commit asks for."""
    reason: str
    """Why the last update ended as it did; empty when there is nothing to say."""

    def text(self) -> str:
        """`state=... version=... slot=... serial=... ready=... reason=...`."""
        return (
            f"state={self.state} version={self.version} slot={self.slot} serial={self.serial} "
            f"ready={self.is_ready:d} reason={self.reason[:REASON_CHARACTERS_MAX]}"
        )


def parse_report(text: str) -> UpdateReport | None:
    """The report in an answer; None for an answer without one, such as a repeated one after a reset."""
    found = _REPORT.match(text)
    if found is None:
        return None
    state, version, slot, serial, is_ready, reason = found.groups()
    return UpdateReport(state, version, slot, int(serial), is_ready == "1", reason)
