"""What a node refuses of bundles that arrive, that it says so, and that nothing comes of it."""

import asyncio
import random  # noqa: TID251 - seeded
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flightsw.net.keys import KeyStore, derived_rings, without_keys
from flightsw.net.security import BundleSecurity, Reason
from flightsw.wire.bundles import CRC_NONE, Bundle, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.messages import SERVICE_COMMAND, SERVICE_TELEMETRY, Verification
from flightsw.wire.security import BLOCK_INTEGRITY, security_blocks

GROUND, NODE, OTHER = 1, 2, 3
RINGS = derived_rings(b"r" * 32, [NODE, OTHER], GROUND)
LIFETIME_MS = 3_600_000


def test_an_attack_is_refused_reported_and_without_effect(
    on_board: Callable[..., None], signed: Callable[..., Bundle], attack: tuple[Callable[[], Bundle], Reason]
) -> None:
    make, reason = attack

    async def scenario(rig: Any) -> None:
        before = len(rig.log)
        rig.inject(encode_bundle(make()))
        await asyncio.sleep(5)
        assert rig.refused() == [reason]
        assert {kind for kind, _ in rig.log[before:]} <= {"security.refused", "event"}
        assert not rig.executed()
        assert rig.node.modes.mode.name == "NOMINAL"
        assert rig.node.agent.counters.security_refused == {reason: 1}
        assert rig.node.agent.counters.bundles_delivered_count == 0
        rig.inject(encode_bundle(signed(sequence=9)))
        await asyncio.sleep(1)
        assert rig.executed() == [1], "what the forgery imitates still gets through"

    on_board(scenario)


def test_a_signed_command_is_executed_and_its_answer_is_signed(
    on_board: Callable[..., None], command: Callable[..., bytes]
) -> None:
    async def scenario(rig: Any) -> None:
        rig.ground.send(NODE, SERVICE_COMMAND, command(), lifetime_ms=LIFETIME_MS)
        await asyncio.sleep(5)
        assert rig.executed() == [1]
        assert [one.stage.name for one in rig.heard if isinstance(one, Verification)] == ["ACCEPTED", "COMPLETED"]
        assert not rig.refused()

    on_board(scenario)


def test_a_replay_has_no_effect_in_the_same_boot_and_after_a_power_cut(
    on_board: Callable[..., None], signed: Callable[..., Bundle]
) -> None:
    async def scenario(rig: Any) -> None:
        data = encode_bundle(signed())
        rig.inject(data)
        rig.inject(data)
        await asyncio.sleep(1)
        assert rig.executed() == [1]
        assert rig.node.agent.counters.bundles_duplicate_count == 1
        await rig.cut()
        for name in rig.disk.names("commands"):
            rig.disk.remove(name)  # what else would know the command
        rig.inject(data)
        await asyncio.sleep(5)
        assert rig.executed() == [1]
        assert rig.refused() == [Reason.REPLAYED]

    on_board(scenario)


def test_a_replay_under_a_new_age_or_with_other_unsigned_blocks_is_a_replay(
    security: Callable[..., BundleSecurity], received: Callable[..., Bundle], signed: Callable[..., Bundle]
) -> None:
    judge = security(NODE)
    made = signed()
    assert judge.accept(received(made), 0).refusal is None
    again = replace(received(made), age_ms=77, blocks=(*made.blocks, CanonicalBlock(192, 9, 0, CRC_NONE, b"\x00")))
    assert judge.accept(decode_bundle(encode_bundle(again)), 0).refusal is Reason.REPLAYED


@pytest.mark.parametrize("seed", range(6))
def test_commands_that_come_in_any_order_and_often_are_executed_once_each(
    on_board: Callable[..., None], command: Callable[..., bytes], signed: Callable[..., Bundle], seed: int
) -> None:
    async def scenario(rig: Any) -> None:
        draw = random.Random(seed)
        numbers = list(range(1, 21)) * 3
        draw.shuffle(numbers)
        made = {number: encode_bundle(signed(command(number, "NODE.NOOP"), sequence=number)) for number in set(numbers)}
        for position, number in enumerate(numbers):
            rig.inject(made[number])
            if position % 20 == 10:
                await rig.cut()
        await asyncio.sleep(1)
        assert sorted(rig.executed()) == list(range(1, 21))  # type: ignore[type-var]

    on_board(scenario, seed=seed)


def test_a_stale_key_is_refused_and_a_deactivated_one_still_verifies(
    on_board: Callable[..., None],
    security: Callable[..., BundleSecurity],
    bundle: Callable[..., Bundle],
    command: Callable[..., bytes],
) -> None:
    async def scenario(rig: Any) -> None:
        node, ground = rig.node.keys, KeyStore(RINGS[GROUND])
        for keys, peer in ((node, GROUND), (ground, NODE)):
            keys.load(peer, 2, b"n" * 32)
        node.activate(GROUND, 2)
        node.deactivate(GROUND, 1)
        old = security()
        rig.inject(encode_bundle(old.protect(bundle(command(1, "NODE.NOOP"), SERVICE_COMMAND, 1))))
        node.destroy(GROUND, 1)
        rig.inject(encode_bundle(old.protect(bundle(command(2, "NODE.NOOP"), SERVICE_COMMAND, 2))))
        ground.activate(NODE, 2)
        new = BundleSecurity(GROUND, ground)
        rig.inject(encode_bundle(new.protect(bundle(command(3, "NODE.NOOP"), SERVICE_COMMAND, 3))))
        await asyncio.sleep(5)
        assert rig.executed() == [1, 3]
        assert rig.node.agent.counters.security_refused == {Reason.STALE_KEY: 1}

    on_board(scenario)


def test_a_node_without_keys_says_so_and_takes_no_command(
    on_board: Callable[..., None], command: Callable[..., bytes]
) -> None:
    async def scenario(rig: Any) -> None:
        rig.ground.send(NODE, SERVICE_COMMAND, command(), lifetime_ms=LIFETIME_MS)
        await asyncio.sleep(20)
        assert not rig.executed()
        assert rig.node.agent.counters.security_refused == {Reason.NO_KEYS: 1}
        assert rig.beacons()[-1].key_id == 0
        assert rig.beacons()[-1].security_refused_count == 1

    on_board(scenario, keys=None)
    on_board(scenario, keys=without_keys(NODE))


def test_the_beacon_tells_the_key_and_is_signed_where_the_setting_says_so(
    on_board: Callable[..., None], security: Callable[..., BundleSecurity], bundle: Callable[..., Bundle]
) -> None:
    async def scenario(rig: Any) -> None:
        await asyncio.sleep(20)
        assert rig.beacons()[-1].key_id == 1

    on_board(scenario)
    for is_signed in (True, False):
        made = security(NODE, sign_telemetry=is_signed).protect(bundle(b"b", SERVICE_TELEMETRY, 1, NODE, GROUND))
        assert bool(security_blocks(made, BLOCK_INTEGRITY)) is is_signed


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_at_any_disk_operation_executes_no_command_twice(
    on_board: Callable[..., None], command: Callable[..., bytes], signed: Callable[..., Bundle], seed: int
) -> None:
    """Each command comes three times, while the power fails at a drawn operation of the disk."""

    class Cut(Exception):
        pass

    async def scenario(rig: Any) -> None:
        draw = random.Random(seed)
        made = [encode_bundle(signed(command(number, "NODE.NOOP"), sequence=number)) for number in range(1, 9)]
        sync, calls, cut_at = rig.disk.sync, 0, draw.randint(1, 12)

        def failing(name: str) -> None:
            nonlocal calls
            calls += 1
            if calls == cut_at:
                raise Cut
            sync(name)

        rig.disk.sync = failing  # type: ignore[method-assign]
        for _ in range(3):
            for data in made:
                try:
                    rig.inject(data)
                except Cut:
                    await rig.cut()
        await asyncio.sleep(1)
        assert len(rig.executed()) == len(set(rig.executed()))
        assert len(rig.executed()) >= 7, "only the one at the cut may be lost; the ground repeats it in a new bundle"

    on_board(scenario, seed=seed)
