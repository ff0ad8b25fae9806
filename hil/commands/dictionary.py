"""`flatrack dictionary`: what a node can be told and can tell."""

import click
import msgspec

from flightsw.dictionary import ComponentSpec, flight_dictionary
from flightsw.dictionary.text import usage
from flightsw.errors import ConfigError
from hil.commands.completion import ComponentName


@click.command(name="dictionary")
@click.argument("component", type=ComponentName(), required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def dictionary_command(component: str | None, as_json: bool) -> None:
    """Print the dictionary, or what it says of one COMPONENT: commands, events, channels, parameters."""
    known = flight_dictionary()
    if component is not None and component not in known.components:
        raise ConfigError(f"component is {component!r}, expected one of {', '.join(known.components)}")
    if as_json and component is None:
        click.echo(known.as_json())
        return
    if as_json and component is not None:
        click.echo(msgspec.json.format(msgspec.json.encode(known.as_builtins()[component]), indent=2))
        return
    parts = known.components.values() if component is None else [known.components[component]]
    click.echo(f"dictionary {known.digest.hex()}")
    for part in parts:
        click.echo()
        for line in _lines(part):
            click.echo(line)


def _lines(part: ComponentSpec) -> list[str]:
    lines = [f"{part.name} ({part.number}): {part.doc}"]
    for command in part.commands.values():
        mark = " [hazardous]" * command.hazardous + " [takes time]" * command.takes_time
        words = f" {usage(command)}" if command.arguments else ""
        lines.append(f"  command   {command.key}{words}{mark}")
    lines += [f"  event     {event.key} {event.severity.name}: {event.format}" for event in part.events.values()]
    for channel in part.channels.values():
        lines.append(f"  channel   {channel.key} {channel.type}{f' [{channel.unit}]' if channel.unit else ''}")
    for packet in part.packets.values():
        lines.append(f"  packet    {packet.key} {packet.rate}, priority {packet.priority}")
    for parameter in part.parameters.values():
        unit = f" {parameter.unit}" if parameter.unit else ""
        lines.append(f"  parameter {parameter.key} {parameter.type} = {parameter.default}{unit}")
    return lines
