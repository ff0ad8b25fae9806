"""What goes wrong with power, heat, sensors and electronics."""

from typing import Final

from flightsw.wire.messages import Mode
from hil.bench.single import Single
from hil.faults.plan import Heat, LatchUp, SensorFault
from hil.protection.scenario import Act, Scenario, require

DAY_S: Final = 86_400.0
FOREVER_S: Final = 1e7
ARM_ALL: Final = ("LIMITS.ARM", "*")
NOMINAL: Final = ("MODE.NOMINAL",)
SUNSET_S: Final = 1500.0
DUSK: Final = {"lit": ((0.0, SUNSET_S), (SUNSET_S + 2000.0, FOREVER_S))}
"""Sunlight that ends after 25 minutes, for half an hour."""


def sensor(name: str, how: str) -> Act:
    """Break a sensor."""

    async def inject(rig: Single) -> None:
        rig.strike(SensorFault(node=rig.name, at_s=0.0, sensor=name, how=how))  # type: ignore[arg-type]
        await rig.run(1.0)

    return inject


async def mend_sensors(rig: Single) -> None:
    """All sensors read true again."""
    rig.board.mend_sensors("charge_j", "solar_w", "load_w", "electronics_degc", "sunlight")
    await rig.run(30.0)


async def hidden_load(rig: Single, extra_w: float) -> None:
    """Draw current that the load sensor does not show."""
    rig.strike(SensorFault(node=rig.name, at_s=0.0, sensor="load_w", how="stuck"))
    rig.strike(LatchUp(node=rig.name, at_s=1.0, extra_w=extra_w))
    await rig.run(2.0)


async def end_hidden_load(rig: Single) -> None:
    """The cell is switched off, the sensor mended."""
    rig.board.latch_up(0.0)
    await mend_sensors(rig)


async def collapse(rig: Single) -> None:
    """In eclipse, the battery loses charge faster than any load explains."""
    await rig.until(lambda: rig.mode is Mode.ECLIPSE, within_s=200.0)
    await hidden_load(rig, 60.0)


async def runaway(rig: Single) -> None:
    """Heat that no load explains."""
    await hidden_load(rig, 250.0)


async def blocked_radiator(rig: Single) -> None:
    """The radiator does not radiate, and something draws too little to be noticed by the load rules."""
    rig.strike(Heat(node=rig.name, at_s=0.0, duration_s=DAY_S))
    await rig.run(1.0)


async def open_radiator(rig: Single) -> None:
    """The radiator radiates again, and the board cools down."""
    rig.board.set_radiator_share(1.0)
    await rig.until(lambda: rig.board.truth().electronics_degc < 60.0, within_s=DAY_S, step_s=60.0)


def latch(extra_w: float) -> Act:
    """Latch up."""

    async def inject(rig: Single) -> None:
        rig.strike(LatchUp(node=rig.name, at_s=0.0, extra_w=extra_w))
        await rig.run(1.0)

    return inject


async def latch_again(rig: Single) -> None:
    """Latch up once more when the power cycle is over."""
    await latch(5.0)(rig)
    await rig.until(lambda: rig.boots_count == 2, within_s=120.0)
    await rig.run(30.0)
    await latch(5.0)(rig)


async def let_go(rig: Single) -> None:
    """The latch-up ends with the power cycle that the ground commands."""
    await rig.command("NODE.POWER_CYCLE", is_armed=True)
    await rig.until(lambda: rig.boots_count == 3, within_s=60.0)
    await rig.run(30.0)


async def was_power_cycled(rig: Single) -> None:
    """The board has let go."""
    require(rig.board.troubles.latch_up_w == 0.0, "the latch-up holds on after the power cycle")
    require(rig.boots_count == 2, f"{rig.boots_count} boots, expected one power cycle")


async def leak(rig: Single) -> None:
    """Memory fills up."""
    rig.board.leak_memory(0.97)
    await rig.run(1.0)


async def load_without_reading(rig: Single) -> None:
    """A job runs, and the load sensor goes on showing the idle load."""
    rig.strike(SensorFault(node=rig.name, at_s=0.0, sensor="load_w", how="stuck"))
    await rig.run(2.0)
    rig.submit(step_s=60.0)


async def nothing(_: Single) -> None:
    """The sun does it."""


async def sunrise(rig: Single) -> None:
    """Wait for the sun to charge the battery."""
    await rig.until(lambda: rig.board.truth().charge_j > 0.5 * rig.board.truth().battery_j, within_s=DAY_S, step_s=60.0)
    await rig.run(30.0)


def _stuck(name: str, sensor_name: str, rule: str, cause: str, how: str, within_s: float) -> Scenario:
    return Scenario(
        name=name,
        fault=cause,
        inject=sensor(sensor_name, how),
        mode=Mode.SAFE,
        events=(f"LIMITS.FIRED {rule}", f"MODE.RESTRICTED SAFE: limit rule {rule}"),
        within_s=within_s,
        mend=mend_sensors,
        recovery=(NOMINAL, ARM_ALL),
        options=DUSK if how == "stuck" else {},
    )


SCENARIOS: Final = (
    _stuck(
        "temperature_stuck",
        "electronics_degc",
        "temperature_stuck",
        "the temperature sensor stays at one value; the sun goes down",
        "stuck",
        1600.0,
    ),
    _stuck(
        "charge_stuck",
        "charge_j",
        "battery_stuck",
        "the charge sensor stays at one value; the sun goes down",
        "stuck",
        1600.0,
    ),
    _stuck("sensors_missing", "charge_j", "battery_unread", "the sensor bus does not answer", "missing", 180.0),
    _stuck(
        "sensors_stale",
        "charge_j",
        "battery_unread",
        "readings stay what they were, with their old time",
        "stale",
        180.0,
    ),
    _stuck(
        "charge_nonsense", "charge_j", "battery_unread", "the charge sensor reads what cannot be", "nonsense", 180.0
    ),
    _stuck(
        "temperature_nonsense",
        "electronics_degc",
        "temperature_unread",
        "the temperature sensor reads what cannot be",
        "nonsense",
        180.0,
    ),
    Scenario(
        name="battery_low",
        fault="an eclipse finds the battery low",
        inject=nothing,
        mode=Mode.LOW_POWER,
        events=("MODE.RESTRICTED LOW_POWER: charge low",),
        within_s=1800.0,
        mend=sunrise,
        options={"charge": 0.34, "lit": ((0.0, 90.0), (1200.0, FOREVER_S))},
    ),
    Scenario(
        name="battery_critical",
        fault="an eclipse finds the battery nearly empty",
        inject=nothing,
        mode=Mode.SAFE,
        events=("MODE.RESTRICTED LOW_POWER: charge low", "MODE.RESTRICTED SAFE: charge critical"),
        within_s=3600.0,
        mend=sunrise,
        recovery=(NOMINAL, ARM_ALL),
        options={"charge": 0.34, "lit": ((0.0, 90.0), (2500.0, FOREVER_S))},
    ),
    Scenario(
        name="brown_out",
        fault="the battery runs empty in a long eclipse; the sun comes back",
        inject=nothing,
        mode=Mode.SAFE,
        events=(
            "LIMITS.NOTICED battery_exhausted",
            "NODE.RESET boot 2 after BROWN_OUT",
            "MODE.RESTRICTED SAFE: safe kept over the reset",
        ),
        within_s=20_000.0,
        mend=sunrise,
        recovery=(NOMINAL, ARM_ALL),
        options={"charge": 0.34, "lit": ((0.0, 90.0), (9000.0, FOREVER_S))},
    ),
    Scenario(
        name="battery_collapse",
        fault="in eclipse, charge falls faster than any load explains",
        inject=collapse,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED battery_collapse", "MODE.RESTRICTED SAFE: limit rule battery_collapse"),
        within_s=300.0,
        mend=end_hidden_load,
        recovery=(NOMINAL, ARM_ALL),
        options={"lit": ((0.0, 90.0), (2000.0, FOREVER_S))},
    ),
    Scenario(
        name="thermal_runaway",
        fault="the electronics heat up faster than any load explains",
        inject=runaway,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED temperature_runaway", "MODE.RESTRICTED SAFE: limit rule"),
        within_s=120.0,
        mend=end_hidden_load,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="radiator_blocked",
        fault="the radiator does not radiate",
        inject=blocked_radiator,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED temperature_high", "MODE.RESTRICTED SAFE: limit rule temperature_high"),
        within_s=DAY_S,
        mend=open_radiator,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="latch_up",
        fault="5 W more than the activity explains",
        inject=latch(5.0),
        mode=Mode.NOMINAL,
        events=("LIMITS.FIRED latch_up", "NODE.RESET boot 2 after POWER_CYCLE"),
        within_s=120.0,
        recovery=(ARM_ALL,),
        check=was_power_cycled,
    ),
    Scenario(
        name="latch_up_again",
        fault="the latch-up comes back after the power cycle",
        inject=latch_again,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED latch_up", "LIMITS.FIRED overload", "MODE.RESTRICTED SAFE: limit rule overload"),
        within_s=600.0,
        mend=let_go,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="memory_leak",
        fault="the board's memory fills up",
        inject=leak,
        mode=Mode.NOMINAL,
        events=("LIMITS.FIRED memory_short", "NODE.RESET boot 2 after RESET_COMMAND"),
        within_s=180.0,
        recovery=(ARM_ALL,),
    ),
    Scenario(
        name="load_sensor_low",
        fault="the load sensor does not show the load of a job",
        inject=load_without_reading,
        mode=Mode.NOMINAL,
        events=("LIMITS.NOTICED load_sensor_low",),
        within_s=300.0,
        mend=mend_sensors,
        recovery=(ARM_ALL,),
    ),
)
