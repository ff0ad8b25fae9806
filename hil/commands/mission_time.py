"""`flatrack time`: how far a node's mission time is off, and the commands that put it right."""

import asyncio
from typing import Any, Final

import click

from flightsw.errors import ConfigError
from ground.sequence_text import utc_text
from hil.commands.asking import GroundPeer, asks_ground, node_key
from hil.commands.chains import LOOK_S, WAIT, complete

MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
SMALL_NS_MAX: Final = 10 * NS_PER_S
"""Largest offset of TIME.ADJUST and TIME.STEP [ns]: as the dictionary has it."""


@click.command(name="time")
@click.argument("node")
@click.option("--no-measure", is_flag=True, help="Tell what is known, and do not ask the node.")
@click.option("--adjust", is_flag=True, help="Slew the offset away and correct the rate (TIME.ADJUST).")
@click.option("--step", is_flag=True, help="Jump by the offset, of ten seconds at most (TIME.STEP).")
@click.option("--set", "is_set", is_flag=True, help="Jump by the offset, whatever it is (COMMANDS.ARM, TIME.SET).")
@WAIT
@asks_ground
async def time_command(
    ground: GroundPeer, node: str, no_measure: bool, adjust: bool, step: bool, is_set: bool, wait_s: float
) -> bool:
    """Measure how far the mission time of a NODE (its name or number) is off; correct it where that is asked for."""
    if adjust + step + is_set > 1:
        raise ConfigError("--adjust, --step, --set: expected one of them")
    key = node_key(node)
    found = await ground.ask("time", key) if no_measure else await _measured(ground, key, wait_s)
    if found is None:
        click.echo("no answer on record" if no_measure else f"no answer within {wait_s:g} s")
        return False
    for line in _lines(found):
        click.echo(line)
    offset_ns, correlation = found["correction"]["offset_ns"], found["correlation"]
    if (adjust or step) and abs(offset_ns) > SMALL_NS_MAX:
        raise ConfigError(
            f"--{'adjust' if adjust else 'step'}: offset is {offset_ns / NS_PER_S:+.3f} s, expected --set"
        )
    if adjust:
        arguments = [offset_ns, found["correction"]["rate_ppb"], correlation]
        return await complete(ground, key, "TIME.ADJUST", arguments, wait_s) is not None
    if step:
        return await complete(ground, key, "TIME.STEP", [offset_ns, correlation], wait_s) is not None
    if is_set:
        if await complete(ground, key, "COMMANDS.ARM", ["TIME.SET"], wait_s) is None:
            return False
        return await complete(ground, key, "TIME.SET", [offset_ns, correlation], wait_s) is not None
    return True


async def _measured(ground: GroundPeer, node: int | str, wait_s: float) -> dict[str, Any] | None:
    """What is known once the answer of a new query is in."""
    number = await ground.ask("measure_time", node)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while True:
        found: dict[str, Any] | None = await ground.ask("time", node)
        if found is not None and found["query"] >= number:
            return found
        if loop.time() >= until_s:
            return None
        await asyncio.sleep(LOOK_S)


def _lines(found: dict[str, Any]) -> list[str]:
    light = found["light_time_ns"]
    drift = "not known yet"
    if found["drift_ppb"] is not None:
        drift = f"{found['drift_ppb'] / 1000:+.3f} ppm, sure to {found['drift_bound_ppb'] / 1000:.3f} ppm"
    return [
        f"mission time {utc_text(found['mission_ns'])}, {found['state']}, correlation {found['correlation']}",
        f"offset       {found['offset_ns'] / MS:+.3f} ms, sure to {found['offset_bound_ns'] / MS:.3f} ms",
        f"drift        {drift}, of {found['readings']} readings; rate correction {found['rate_ppb'] / 1000:+.3f} ppm",
        f"STCF         {found['stcf_ns'] / NS_PER_S:+.9f} s; MET {found['met_ns'] / NS_PER_S:.3f} s",
        f"round trip   {2 * found['half_round_trip_ns'] / MS:.3f} ms; light time one way "
        + ("unknown, no direct contact" if light is None else f"{light / MS:.3f} ms at most"),
    ]
