"""What comes up the link and must not take effect: forged, replayed, malformed, unarmed, or of another dictionary."""

from typing import Final

from boards.simulated.clock import LoopClock
from flightsw.dictionary import flight_dictionary
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KEY_BYTES, KeyStore, derived_rings
from flightsw.net.security import BundleSecurity
from flightsw.wire.messages import SERVICE_COMMAND, Command, CommandCode, Mode, Stage, encode_message
from ground.sequences import compile_source
from hil.bench.single import EPOCH_UTC_NS, GROUND, INTERFACES, NODE, RADIO, Single
from hil.protection.scenario import Act, Scenario, require

ARM_ALL: Final = ("LIMITS.ARM", "*")
FORGED_COUNT: Final = 25
"""Forged bundles: a few more than the rule bears in its window."""
FORGED_SESSIONS: Final = 9 << 32
"""Session numbers that no start of the ground has used."""
STRANGE_ID: Final = 900_001
"""Number of a command that no ledger knows."""
LIFETIME_MS: Final = 600_000

SEQUENCE: Final = """
sequence("rest", kind="relative")
NODE.NOOP()
wait(seconds=10)
MODE.SAFE()
"""

BROKEN_RULES: Final = b"""
name = "broken"
[watchpoints.dark]
when = "MODE.sunlite < 0.5"
doc = "no such channel"
[rules.dark]
when = "dark"
doc = "never"
"""


def _forger(rig: Single) -> Endpoint:
    """A ground station with the right number and other keys."""
    rings = derived_rings(rig.streams.bytes("forger/keys", KEY_BYTES), [NODE], GROUND)
    agent = BundleAgent(
        GROUND,
        rig.plan,
        INTERFACES,
        FORGED_SESSIONS,
        security=BundleSecurity(GROUND, KeyStore(rings[GROUND])),
    )
    clock = LoopClock(lambda: rig.loop.now_ns, EPOCH_UTC_NS)
    return Endpoint(clock, MemoryLink(rig.radiate), agent, lambda _: None)


async def forge(rig: Single) -> None:
    """Send commands under another key."""
    forger = _forger(rig)
    for number in range(FORGED_COUNT):
        payload = encode_message(Command(STRANGE_ID + number, "MODE.SAFE", LIFETIME_MS))
        forger.send(NODE, SERVICE_COMMAND, payload, lifetime_ms=LIFETIME_MS, reliable=False)
        await rig.run(1.0)
    await forger.close()


async def replay(rig: Single) -> None:
    """Send again what the ground sent, to a node that has forgotten its sessions."""
    rig.uplinked.clear()
    await rig.command("MODE.SAFE")
    heard = list(rig.uplinked)
    await rig.command("MODE.NOMINAL")
    await rig.command("NODE.RESET")
    await rig.until(lambda: rig.boots_count == 2, within_s=60.0)
    await rig.run(30.0)
    for frame in heard:
        rig.radiate(RADIO, frame)
    await rig.run(1.0)


async def speak_otherwise(rig: Single) -> None:
    """Send a signed command of another dictionary."""
    command = Command(STRANGE_ID, "MODE.SAFE", LIFETIME_MS, (), b"\x01" * 8)
    rig.ground.endpoint.send(NODE, SERVICE_COMMAND, encode_message(command), lifetime_ms=LIFETIME_MS)
    await rig.run(5.0)


async def babble(rig: Single) -> None:
    """Send signed bytes that are no message."""
    rig.ground.endpoint.send(NODE, SERVICE_COMMAND, b"\xff no message", lifetime_ms=LIFETIME_MS)
    await rig.run(5.0)


def refused(code: CommandCode, opcode: str, *arguments: object, is_armed: bool = False) -> Act:
    """Send a command that must be refused with a code."""

    async def inject(rig: Single) -> None:
        end = await rig.command(opcode, *arguments, is_armed=is_armed)
        require(end.stage is Stage.FAILED, f"{opcode} ended {end.stage.name}")
        require(end.code is code, f"{opcode} was refused with {end.code.name}: {end.detail}")

    return inject


async def spoil_sequence(rig: Single) -> None:
    """Upload a sequence in which a byte of its second entry was changed."""
    image = bytearray(compile_source(SEQUENCE, "rest.seq", flight_dictionary()))
    at = image.find(b"MODE.SAFE")
    image[at] ^= 0x01
    end = await rig.command("SEQUENCES.LOAD", bytes(image))
    require(end.stage is Stage.FAILED, f"SEQUENCES.LOAD ended {end.stage.name}")
    require("entry 2" in end.detail, f"the refusal does not name the entry: {end.detail}")


async def nothing_happened(rig: Single) -> None:
    """The node has not left its mode, and nothing of it was executed."""
    changes = [fields for _, kind, fields in rig.log if kind == "node.mode" and fields["mode"] == "SAFE"]
    require(not changes, f"the node went SAFE: {changes}")
    strange = [fields for _, kind, fields in rig.log if kind == "command.executed" and fields["opcode"] == "MODE.SAFE"]
    require(not strange, f"{strange} was executed")


async def once_only(rig: Single) -> None:
    """MODE.SAFE was executed once, by the ground, and never again."""
    await rig.run(60.0)
    safe = [fields for _, kind, fields in rig.log if kind == "command.executed" and fields["opcode"] == "MODE.SAFE"]
    require(len(safe) == 1, f"MODE.SAFE was executed {len(safe)} times")


async def same_rules(rig: Single) -> None:
    """The rules are those of before, and they are armed."""
    require(rig.node.commands.counts["LIMITS"].rejected == 1, "the refusal was not counted")
    status = await rig.command("LIMITS.STATUS", "latch_up")
    require(status.detail.startswith("ACTIVE PASS"), f"latch_up is {status.detail}")


async def never_rebooted(rig: Single) -> None:
    """The node was not power cycled."""
    await rig.run(60.0)
    require(rig.boots_count == 1, f"{rig.boots_count} boots")


SCENARIOS: Final = (
    Scenario(
        name="forged_commands",
        fault=f"{FORGED_COUNT} commands under another key",
        inject=forge,
        mode=Mode.NOMINAL,
        events=("KEYS.REFUSED BAD_TAG", "LIMITS.NOTICED forged_traffic"),
        within_s=120.0,
        check=nothing_happened,
        recovery=(ARM_ALL,),
    ),
    Scenario(
        name="replayed_command",
        fault="an old command is sent again after a reset",
        inject=replay,
        mode=Mode.NOMINAL,
        events=("KEYS.REFUSED REPLAYED",),
        within_s=300.0,
        check=once_only,
    ),
    Scenario(
        name="other_dictionary",
        fault="a signed command of another dictionary",
        inject=speak_otherwise,
        mode=Mode.NOMINAL,
        events=(),
        within_s=60.0,
        check=nothing_happened,
    ),
    Scenario(
        name="no_message",
        fault="signed bytes that are no message",
        inject=babble,
        mode=Mode.NOMINAL,
        events=("NODE.BAD_MESSAGE",),
        within_s=60.0,
    ),
    Scenario(
        name="unarmed_hazard",
        fault="a hazardous command without arm",
        inject=refused(CommandCode.NOT_ARMED, "NODE.POWER_CYCLE"),
        mode=Mode.NOMINAL,
        events=(),
        within_s=60.0,
        check=never_rebooted,
    ),
    Scenario(
        name="forged_sequence",
        fault="a sequence of which one byte was changed",
        inject=spoil_sequence,
        mode=Mode.NOMINAL,
        events=(),
        within_s=60.0,
        check=nothing_happened,
    ),
    Scenario(
        name="broken_rules",
        fault="a rule file that names no channel",
        inject=refused(CommandCode.VALIDATION_ERROR, "LIMITS.LOAD", BROKEN_RULES, is_armed=True),
        mode=Mode.NOMINAL,
        events=(),
        within_s=60.0,
        check=same_rules,
    ),
)
