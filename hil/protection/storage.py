"""What goes wrong with the disk: full, failing, rotten."""

from typing import Final

from flightsw.ports import ResetCause
from flightsw.wire.messages import Mode
from hil.bench.single import Single
from hil.faults.plan import DiskFull, ObjectRot
from hil.protection.scenario import Act, Scenario, require

ARM_ALL: Final = ("LIMITS.ARM", "*")
NOMINAL: Final = ("MODE.NOMINAL",)
MIB: Final = 1024 * 1024
HELD: Final = "MODE.low_power_leave"
HELD_VALUE: Final = 0.55


def full(free_bytes: int) -> Act:
    """Something else takes the space."""

    async def inject(rig: Single) -> None:
        rig.strike(DiskFull(node=rig.name, at_s=0.0, duration_s=1800.0, free_bytes=free_bytes))
        await rig.run(1.0)

    return inject


async def space_is_back(rig: Single) -> None:
    """What had taken the space is gone."""
    await rig.run(1900.0)


async def failing_writes(rig: Single) -> None:
    """The disk takes no change of the manager's own state; then the ground commands SAFE."""
    rig.disk.fail_writes("mode", "limits")
    await rig.command("MODE.SAFE")


async def writes_work(rig: Single) -> None:
    """The disk works again."""
    rig.disk.fail_writes()


def rot_and_reset(prefix: str, copies: int, *before: tuple[object, ...]) -> Act:
    """Flip a bit in copies of a state, and let the node boot on it."""

    async def inject(rig: Single) -> None:
        for opcode, *arguments in before:
            await rig.command(str(opcode), *arguments)
        names = [name for name in rig.disk.names(prefix) if name.startswith(f"{prefix}.")]
        require(len(names) >= copies, f"{prefix}: {names} are there, expected {copies} copies or more")
        for name in names[:copies]:
            rig.disk.flip_bit(name, 8 * (len(rig.disk.read(name)) // 2))
        rig.satellite.cut()
        rig.satellite.boot_later(5.0, ResetCause.POWER_CYCLE)
        await rig.run(10.0)

    return inject


def holds(value: float) -> Act:
    """The parameter has this value on board."""

    async def check(rig: Single) -> None:
        found = (await rig.command("PARAMETERS.GET", HELD)).detail
        require(str(value) in found, f"{HELD} is {found}, expected {value}")

    return check


async def rotten_object(rig: Single) -> None:
    """A bit of a stored object flips."""
    rig.submit(step_s=60.0)
    await rig.run(30.0)
    rig.strike(ObjectRot(node=rig.name, at_s=0.0))
    await rig.run(1.0)


async def executed_once(rig: Single) -> None:
    """A command that was executed before the reset is not executed again."""
    executed = [fields["opcode"] for _, kind, fields in rig.log if kind == "command.executed"]
    await rig.run(400.0)  # the ground repeats what it has no answer to
    after = [fields["opcode"] for _, kind, fields in rig.log if kind == "command.executed"]
    require(after == executed, f"{after[len(executed) :]} executed again")


SET_HELD: Final = ("PARAMETERS.SET", HELD, str(HELD_VALUE))
DEFAULT_HELD: Final = 0.4

SCENARIOS: Final = (
    Scenario(
        name="storage_nearly_full",
        fault="4 MiB of the disk are free",
        inject=full(4 * MIB),
        mode=Mode.NOMINAL,
        events=("LIMITS.NOTICED storage_nearly_full",),
        within_s=120.0,
        mend=space_is_back,
        recovery=(ARM_ALL,),
    ),
    Scenario(
        name="storage_full",
        fault="64 KiB of the disk are free",
        inject=full(65_536),
        mode=Mode.SAFE,
        events=("LIMITS.FIRED storage_full", "MODE.RESTRICTED SAFE: limit rule storage_full"),
        within_s=120.0,
        mend=space_is_back,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="write_errors",
        fault="the disk refuses writes; the ground commands SAFE",
        inject=failing_writes,
        mode=Mode.SAFE,
        events=("MODE.UNSAVED", "MODE.RESTRICTED SAFE: safe commanded"),
        within_s=60.0,
        mend=writes_work,
        recovery=(NOMINAL,),
    ),
    Scenario(
        name="parameter_rot_one_copy",
        fault="one copy of the parameters rots before a reset",
        inject=rot_and_reset("parameters", 1, SET_HELD),
        mode=Mode.NOMINAL,
        events=("PARAMETERS.REPAIRED",),
        within_s=120.0,
        check=holds(HELD_VALUE),
    ),
    Scenario(
        name="parameter_rot_both_copies",
        fault="both copies of the parameters rot before a reset",
        inject=rot_and_reset("parameters", 2, SET_HELD),
        mode=Mode.NOMINAL,
        events=("PARAMETERS.LOST",),
        within_s=120.0,
        check=holds(DEFAULT_HELD),
        recovery=(SET_HELD,),
    ),
    Scenario(
        name="mode_rot_both_copies",
        fault="both copies of the mode record rot before a reset",
        inject=rot_and_reset("mode", 2),
        mode=Mode.SAFE,
        events=("MODE.RECORD_LOST", "MODE.RESTRICTED SAFE: mode record lost"),
        within_s=120.0,
        recovery=(NOMINAL,),
    ),
    Scenario(
        name="rule_states_rot",
        fault="both copies of the states of limit rules rot before a reset",
        inject=rot_and_reset("limits-states", 2, ("LIMITS.ARM", "*")),
        mode=Mode.NOMINAL,
        events=("LIMITS.STATES_LOST",),
        within_s=120.0,
    ),
    Scenario(
        name="command_log_rot",
        fault="a bit of the log of executed commands rots before a reset",
        inject=rot_and_reset("commands", 1, ("NODE.NOOP",), ("JOBS.NOOP",)),
        mode=Mode.NOMINAL,
        events=("NODE.RESET boot 2",),
        within_s=120.0,
        check=executed_once,
    ),
    Scenario(
        name="object_rot",
        fault="a bit of a stored object flips",
        inject=rotten_object,
        mode=Mode.NOMINAL,
        events=("OBJECTS.ROTTEN",),
        within_s=600.0,
    ),
)
