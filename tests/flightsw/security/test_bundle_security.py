"""The signing and judging of bundles by themselves: what arrives whole, what is found, and what is never sent."""

import random  # noqa: TID251 - seeded
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import KeyRing, KeyStore, derived_rings, without_keys
from flightsw.net.security import (
    REPORT_PERIOD_NS,
    REPORTED_MAX,
    WINDOWS,
    BundleSecurity,
    Reason,
    initialisation_vector,
    key_ids,
)
from flightsw.wire import integrity
from flightsw.wire.bundles import Bundle, decode_bundle, departing, encode_bundle
from flightsw.wire.eids import Eid
from flightsw.wire.messages import SERVICE_COMMAND, SERVICE_EVENT, SERVICE_JOB, SERVICE_TELEMETRY
from flightsw.wire.security import BLOCK_CONFIDENTIALITY, BLOCK_INTEGRITY, decode_security, security_blocks
from hil.sim.disk import SimulatedDisk

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
GROUND, NODE, OTHER = 1, 2, 3
RADIO = (InterfaceConfig(index=0, name="radio", coding="cobs-crc32c"),)
RINGS = derived_rings(b"r" * 32, [NODE, OTHER], GROUND)
PLAN = ContactPlan(Contact(0, 100_000 * S, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))


def test_unsigned_telemetry_is_taken_until_its_source_has_signed_some(
    security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle], received: Callable[..., Bundle]
) -> None:
    judge, node = security(GROUND), security(NODE)
    unsigned = bundle(b"beacon", SERVICE_TELEMETRY, 1, NODE, GROUND)
    first = judge.accept(received(replace(unsigned)), 0)
    assert (first.refusal, first.authenticated, first.payload) == (None, False, b"beacon")
    true = judge.accept(received(node.protect(bundle(b"beacon", SERVICE_TELEMETRY, 2, NODE, GROUND))), 0)
    assert (true.refusal, true.authenticated) == (None, True)
    assert judge.accept(received(replace(unsigned, creation=(5, 3))), 0).refusal is Reason.NO_TAG
    other = judge.accept(received(bundle(b"x", SERVICE_TELEMETRY, 1, OTHER, GROUND)), 0)
    assert other.refusal is None, "each source for itself"


def test_other_services_are_open_and_what_is_signed_there_is_checked(
    security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle], received: Callable[..., Bundle]
) -> None:
    judge = security(NODE)
    assert judge.accept(received(bundle(b"ping", 77, 1)), 0)[:2] == (None, False)
    secret = received(security().protect(bundle(b"ping", 77, 2), confidential=True))
    assert judge.accept(secret, 0) == (None, True, True, b"ping")
    assert judge.accept(secret, 0).refusal is Reason.REPLAYED


@given(st.binary(max_size=2000), st.integers(0, 2**62), st.booleans(), st.sampled_from(sorted(WINDOWS)))
def test_what_is_protected_arrives_whole_and_the_reference_agrees_with_the_fast_way(
    security: Callable[..., BundleSecurity],
    bundle: Callable[..., Bundle],
    payload: bytes,
    sequence: int,
    confidential: bool,
    service: int,
) -> None:
    sender, judge = security(), security(NODE)
    made = sender.protect(bundle(payload, service, sequence, hop_count=(64, 0)), confidential=confidential)
    data = departing(made, 3)
    verdict = judge.accept(decode_bundle(data), 0)
    assert verdict == (None, True, confidential, payload)
    if confidential:
        assert len(payload) < 8 or payload not in data
    else:
        key = KeyStore(RINGS[GROUND]).sending(NODE)
        assert key is not None
        arrived = decode_bundle(data)
        assert integrity.verify(arrived, arrived.blocks[0], key.integrity_key())
        twin = bundle(payload, service, sequence, hop_count=(64, 0))
        slow = integrity.sign(twin, (1,), number=6, source=Eid(GROUND, 1), key=key.integrity_key())
        assert departing(slow, 3) == data


@given(st.data())
def test_any_changed_byte_of_what_is_signed_is_found(
    security: Callable[..., BundleSecurity],
    received: Callable[..., Bundle],
    signed: Callable[..., Bundle],
    data: st.DataObject,
) -> None:
    made = received(signed())
    (tag,) = made.blocks
    part = data.draw(st.sampled_from(["payload", "tag", "lifetime", "sequence", "source", "destination service"]))
    change = data.draw(st.integers(1, 255))
    if part in ("payload", "tag"):
        content = bytearray(made.payload if part == "payload" else tag.data)
        content[data.draw(st.integers(0, len(content) - 1))] ^= change
        changed = replace(made, payload=bytes(content))
        if part == "tag":
            changed = replace(made, blocks=(tag._replace(data=bytes(content)),))
    elif part == "lifetime":
        changed = replace(made, lifetime_ms=made.lifetime_ms + change)
    elif part == "sequence":
        changed = replace(made, creation=(made.creation[0], made.creation[1] + change))
    elif part == "source":
        changed = replace(made, source=Eid(GROUND, change))
    else:
        changed = replace(made, destination=Eid(NODE, SERVICE_JOB))
    assert security(NODE).accept(decode_bundle(encode_bundle(changed)), 0).refusal is not None


def test_order_is_sign_then_encrypt_and_each_block_has_a_vector_of_its_own(
    security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle]
) -> None:
    made = security().protect(bundle(b"secret" * 9, SERVICE_COMMAND, 5), confidential=True)
    secret_blocks = security_blocks(made, BLOCK_CONFIDENTIALITY)
    assert [decode_security(block.data).targets for block in secret_blocks] == [(6,), (1,)]
    vectors = [decode_security(block.data).parameter(1) for block in secret_blocks]
    assert vectors == [initialisation_vector(GROUND, 5, 6), initialisation_vector(GROUND, 5, 1)]
    (tag,) = security_blocks(made, BLOCK_INTEGRITY)
    assert bytes(made.payload) != b"secret" * 9
    assert b"\x58\x20" not in tag.data[:-32], "the tag block is encrypted too"
    assert key_ids(secret_blocks) == [(BLOCK_CONFIDENTIALITY, 1)] * 2


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**63 - 1)), unique=True, min_size=1))
def test_no_two_blocks_share_an_initialisation_vector(bundles: list[tuple[int, int]]) -> None:
    vectors = [initialisation_vector(*one, target) for one in bundles for target in (1, 6)]
    assert all(len(vector) == 12 for vector in vectors)
    assert len(set(vectors)) == len(vectors)


def test_a_confidential_message_never_leaves_in_clear(
    security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(ConfigError, match="no key is shared with it"):
        security(GROUND, without_keys(GROUND)).protect(bundle(b"x", SERVICE_COMMAND, 1), confidential=True)
    agent = BundleAgent(GROUND, PLAN, RADIO, 1 << 32)
    with pytest.raises(ConfigError, match="has no security"):
        agent.send(NODE, 1, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, confidential=True)


def test_a_message_to_the_own_node_is_trusted(security: Callable[..., BundleSecurity]) -> None:
    agent = BundleAgent(NODE, PLAN, RADIO, 1 << 32, security=security(NODE))
    agent.send(NODE, 1, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, source_service=4)
    (delivery,) = agent.take_deliveries()
    assert (delivery.authenticated, delivery.source_service) == (True, 4)


def test_a_bundle_from_outside_that_names_this_node_as_its_source_is_not(
    security: Callable[..., BundleSecurity],
    bundle: Callable[..., Bundle],
    command: Callable[..., bytes],
    received: Callable[..., Bundle],
) -> None:
    assert (
        security(NODE).accept(received(bundle(command(), SERVICE_COMMAND, 1, NODE, NODE)), 0).refusal is Reason.NO_KEYS
    )


def test_nodes_on_the_way_pass_security_blocks_on_untouched(
    security: Callable[..., BundleSecurity], command: Callable[..., bytes]
) -> None:
    relay = 9
    contacts = [(GROUND, 0, relay, 0), (relay, 0, GROUND, 0), (relay, 1, NODE, 0), (NODE, 0, relay, 1)]
    plan = ContactPlan(Contact(0, 1000 * S, a, i, b, j, 1e6, 10**6) for a, i, b, j in contacts)
    two = (*RADIO, InterfaceConfig(index=1, name="laser"))
    agents = {
        GROUND: BundleAgent(GROUND, plan, RADIO, 1 << 32, security=security(GROUND)),
        relay: BundleAgent(relay, plan, two, 1 << 32, security=BundleSecurity(relay, KeyStore(without_keys(relay)))),
        NODE: BundleAgent(NODE, plan, RADIO, 1 << 32, security=security(NODE)),
    }
    peers = {(a, i): (b, j) for a, i, b, j in contacts}
    agents[GROUND].send(
        NODE, SERVICE_COMMAND, command(), now_ns=0, utc_ns=UTC_NS, lifetime_ms=60_000, confidential=True
    )
    for step in range(50):
        for node, agent in agents.items():
            for interface, frame in agent.pump(step * S // 10):
                target, end = peers[node, interface]
                agents[target].receive_frame(end, frame, step * S // 10)
    (delivery,) = agents[NODE].take_deliveries()
    assert (delivery.authenticated, delivery.confidential, delivery.payload) == (True, True, command())
    assert agents[relay].counters.bundles_forwarded_count == 1
    assert not agents[relay].take_deliveries()


def test_a_flood_of_forgeries_is_counted_and_reported_within_bounds(
    security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle], received: Callable[..., Bundle]
) -> None:
    judge = security(NODE)
    for number in range(1000):
        judge.accept(received(bundle(b"", SERVICE_COMMAND, number, 100 + number)), number)
        judge.accept(received(bundle(b"", SERVICE_COMMAND, number, GROUND)), number)
    assert judge.refused_counts == {Reason.NO_KEYS: 1000, Reason.NO_TAG: 1000}
    assert judge.refused_count == 2000
    reports = list(judge.refusals)
    judge.refusals.clear()
    assert len(reports) == REPORTED_MAX
    assert len(set(reports)) == len(reports)
    judge.accept(received(bundle(b"", SERVICE_COMMAND, 1, GROUND)), REPORT_PERIOD_NS)
    assert [one.reason for one in judge.refusals] == [Reason.NO_TAG], "once a minute"


def test_what_the_disk_does_not_take_is_refused(received: Callable[..., Bundle], signed: Callable[..., Bundle]) -> None:
    medium = SimulatedDisk(1 << 16, random.Random(1))
    judge = BundleSecurity(NODE, KeyStore(RINGS[NODE]), medium)
    medium.append("photos", bytes(medium.free_bytes()))
    assert judge.accept(received(signed()), 0).refusal is Reason.NOT_STORED
    assert judge.accept(received(signed(b"x", SERVICE_EVENT)), 0).refusal is None, "its window is in memory"
    medium.remove("photos")
    assert judge.accept(received(signed()), 0).refusal is None


def test_a_node_number_that_does_not_fit_into_a_vector_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 1 to 4294967295"):
        BundleSecurity(1 << 32, KeyStore(KeyRing(1 << 32)))
