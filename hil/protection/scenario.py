"""A fault-protection scenario and what comes of one.

Everything is judged at the ground: the mode is that of a beacon, events are those that came down the link. So a
scenario that passes also shows that the node was heard and could be commanded.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flightsw.errors import SimulationError
from flightsw.wire.messages import Mode, Stage
from hil.bench.single import Single, run_single

SETTLE_S: Final = 60.0
"""How long the node runs before it is struck [s]: six cycles."""

RECOVERY_S: Final = 300.0
"""Within what the recovery commands must have brought the node to NOMINAL or ECLIPSE [s]: part of a pass."""

WORKING: Final = (Mode.NOMINAL, Mode.ECLIPSE)

Act = Callable[[Single], Awaitable[None]]


async def _nothing(_: Single) -> None:
    """The world needs no mending."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and what must come of it."""

    name: str
    fault: str
    """What happens, in a few words."""
    inject: Act
    mode: Mode
    """In which the node ends."""
    events: tuple[str, ...]
    """What it must tell: key of an event, and the beginning of its text."""
    within_s: float
    """From the injection to mode and events [s]."""
    mend: Act = _nothing
    """What ends the cause, where commands cannot: a sensor works again, the sun comes back."""
    recovery: tuple[tuple[Any, ...], ...] = ()
    """Commands that bring the node back, each its opcode and arguments; a leading `!` arms it first."""
    check: Act = _nothing
    """What else must hold at the end; raises SimulationError."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the rig."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of a scenario."""

    took_s: float
    """From the injection to mode and events [s]."""
    components: frozenset[str]
    """Components that told something of it by an event, or refused a command."""
    rules: frozenset[str]
    """Limit rules that fired."""


def show(scenario: Scenario, seed: int = 1) -> Shown:
    """Run a scenario.

    Raises:
        SimulationError: mode, events or recovery are not as documented; says which.
    """

    async def run(rig: Single) -> Shown:
        await rig.run(SETTLE_S)
        if rig.mode not in WORKING:
            raise SimulationError(f"{scenario.name}: {rig.mode.name} before the fault")
        start_s = rig.now_s
        known = len(rig.events())
        await scenario.inject(rig)

        def missing() -> list[str]:
            told = [f"{key} {text}" for key, text in rig.events()[known:]]
            return [one for one in scenario.events if not any(line.startswith(one) for line in told)]

        def is_shown() -> bool:
            return rig.mode is scenario.mode and not missing()

        try:
            await rig.until(is_shown, within_s=max(0.0, scenario.within_s - (rig.now_s - start_s)))
        except SimulationError:
            told = "\n".join(f"  {key} {text}" for key, text in rig.events()[known:])
            raise SimulationError(
                f"{scenario.name}: {rig.mode.name} after {scenario.within_s:.0f} s, expected {scenario.mode.name}; "
                f"not told: {missing()}; told:\n{told}"
            ) from None
        took_s = rig.now_s - start_s
        events = rig.events()[known:]
        refused = {name for name, counts in rig.node.commands.counts.items() if counts.rejected}
        await scenario.check(rig)
        await scenario.mend(rig)
        await _recover(scenario, rig)
        fired = {text.partition(":")[0] for key, text in events if key in ("LIMITS.FIRED", "LIMITS.NOTICED")}
        return Shown(took_s, frozenset({key.partition(".")[0] for key, _ in events} | refused), frozenset(fired))

    return run_single(run, seed, **scenario.options)


async def _recover(scenario: Scenario, rig: Single) -> None:
    for opcode, *arguments in scenario.recovery:
        end = await rig.command(opcode.lstrip("!"), *arguments, is_armed=opcode.startswith("!"))
        if end.stage is not Stage.COMPLETED:
            raise SimulationError(f"{scenario.name}: {opcode} ended {end.stage.name} {end.code.name}: {end.detail}")
    try:
        await rig.until(lambda: rig.mode in WORKING, within_s=RECOVERY_S)
    except SimulationError:
        raise SimulationError(f"{scenario.name}: {rig.mode.name} after the recovery commands") from None


def require(condition: bool, what: str) -> None:
    """Raise SimulationError unless the condition holds."""
    if not condition:
        raise SimulationError(what)
