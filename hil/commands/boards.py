"""`flatrack board`: boards on a table, from the first look for them to software that runs on them. docs/boards."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click

from flightsw.errors import BoardError, ConfigError, FlatrackError
from hil.commands.board_benchmark import benchmark_command
from hil.commands.board_deploy import deploy_command
from hil.commands.board_faults import fault_group
from hil.commands.board_image import image_command
from hil.commands.board_prepare import flash_command, prepare_command
from hil.commands.board_ram_flips import ram_flips_command
from hil.commands.board_restore import restore_command
from hil.inventory.boards import FILE, Inventory, load
from hil.inventory.deployment import last_lines
from hil.inventory.locks import held
from hil.inventory.ports import SerialPort, find_uart, lasting, scan
from hil.inventory.power import open_power
from hil.inventory.releases import UNIT
from hil.inventory.remote import Remote

PATH: Final = click.Path(path_type=Path)


@click.group(name="board")
@click.option(
    "--boards",
    "file",
    type=PATH,
    default=Path(FILE),
    show_default=True,
    envvar="FLATRACK_BOARDS",
    help="The inventory.  [env: FLATRACK_BOARDS]",
)
@click.pass_context
def board_group(context: click.Context, file: Path) -> None:
    """Find, prepare, deploy to and look after boards on a table."""
    context.obj = file


@board_group.command(name="scan")
@click.pass_obj
def scan_command(file: Path) -> None:
    """Look for serial ports and print an inventory of them, to be completed: flatrack board scan > boards.toml."""
    ports = scan()
    if not ports:
        raise ConfigError("no serial port on this machine, expected an adapter that leads to a board")
    named = _named(file)
    for number, port in enumerate(ports, start=1):
        what = " ".join(part for part in (port.device, port.model) if part)
        if port.device in named:
            click.echo(f"# {what}: is that of {named[port.device]} in {file}\n")
            continue
        click.echo(f"# {what}")
        click.echo(f"[boards.board-{number:02}]")
        click.echo('kind = "raspberry-pi-5"                 # which board hangs on it')
        click.echo(f'ssh = "user@board-{number:02}.local"')
        click.echo(f"uart = {_uart_text(port, ports)}\n")


@board_group.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_command(file: Path, as_json: bool) -> None:
    """Say of each board whether it is reached, its port is there, and which release runs on it."""
    for row in asyncio.run(_rows(load(file))):
        if as_json:
            click.echo(json.dumps(row))
            continue
        click.echo(f"{row['name']:16} {row['kind']:22} port: {row['port']}\n{'':16} ssh: {row['ssh']}")


@board_group.command(name="power")
@click.argument("name")
@click.argument("what", type=click.Choice(["on", "off", "cycle"]))
@click.pass_obj
def power_command(file: Path, name: str, what: str) -> None:
    """Switch the power of board NAME."""
    power = open_power(load(file).board(name).power, name)
    with held(name, f"power {what}"):
        asyncio.run({"on": power.on, "off": power.off, "cycle": power.cycle}[what]())
    click.echo(f"{name}: power {what}")


@board_group.command(name="reset")
@click.argument("name")
@click.option(
    "--power", "by_power", is_flag=True, help="By a power cycle of the board, not by a restart of the service."
)
@click.pass_obj
def reset_command(file: Path, name: str, by_power: bool) -> None:
    """Start the node of board NAME again."""
    inventory = load(file)
    with held(name, "reset"):
        if by_power:
            asyncio.run(open_power(inventory.board(name).power, name).cycle())
            click.echo(f"{name}: power cycled")
        else:
            asyncio.run(_restart(inventory, name))
            click.echo(f"{name}: {UNIT} was restarted")


@board_group.command(name="logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", "count", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.pass_obj
def logs_command(file: Path, name: str, follow: bool, count: int) -> None:
    """Print the last lines of the node's service on board NAME."""
    inventory = load(file)
    if follow:
        sys.exit(asyncio.run(_follow(inventory, name, count)))
    click.echo(asyncio.run(_logs(inventory, name, count)))


@board_group.command(name="shell")
@click.argument("name")
@click.pass_obj
def shell_command(file: Path, name: str) -> None:
    """Open a shell on board NAME."""
    sys.exit(subprocess.call(Remote(name, load(file).board(name)).interactive()))


@board_group.command(name="remove")
@click.argument("name")
@click.option("--keep-data", is_flag=True, help="Leave what the node has kept: /var/lib/flatrack.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove_command(file: Path, name: str, keep_data: bool, yes: bool) -> None:
    """Take everything of flatrack off board NAME: service, releases, settings and keys."""
    inventory = load(file)
    inventory.board(name)
    data = "" if keep_data else ", and what the node has kept"
    if not yes:
        click.confirm(f"{name}: remove service, releases, settings and keys{data}?", abort=True)
    with held(name, "remove"):
        asyncio.run(_remove(inventory, name, with_data=not keep_data))
    click.echo(f"{name}: nothing of flatrack is left" + (" but /var/lib/flatrack" if keep_data else ""))


def _named(file: Path) -> dict[str, str]:
    """Device -> board, of the inventory that there may be already."""
    if not file.exists():
        return {}
    named = {}
    for name, board in load(file).boards.items():
        if board.uart is not None:
            try:
                named[str(find_uart(board.uart))] = name
            except ConfigError:
                continue  # it is not plugged in
    return named


def _uart_text(port: SerialPort, ports: list[SerialPort]) -> str:
    uart = lasting(port, ports)
    parts = [
        f"{name} = {json.dumps(value)}"
        for name in ("id_serial_short", "id_path", "path", "interface", "baud")
        if (value := getattr(uart, name)) is not None
    ]
    return f"{{ {', '.join(parts)} }}"


async def _rows(inventory: Inventory) -> list[dict[str, Any]]:
    rows = [_row(inventory, name) for name in sorted(inventory.boards)]
    return list(await asyncio.gather(*rows))


async def _row(inventory: Inventory, name: str) -> dict[str, Any]:
    """What is known of one board; what cannot be reached is said, not raised."""
    board = inventory.board(name)
    row: dict[str, Any] = {"name": name, "kind": board.kind, "port": "none", "ssh": "none"}
    if board.uart is not None:
        try:
            row["port"] = str(find_uart(board.uart))
        except ConfigError:
            row["port"] = f"absent: {board.uart}"
    if board.ssh is None:
        return row
    try:
        async with Remote(name, board) as remote:
            found = await remote.ask("look", {"release": "", "environment": ""})
    except FlatrackError as error:
        row["ssh"] = str(error).partition("\n")[0]
        return row
    row |= {key: found[key] for key in ("current", "version", "is_active", "is_lent")}
    runs = "runs" if found["is_active"] else "does not run"
    row["ssh"] = (
        f"flatrack {found['version']}, release {found['current']} {runs}" if found["current"] else "reached, no release"
    )
    if found["is_lent"]:
        row["ssh"] += f", with the settings of a run: flatrack board restore {name}"
    return row


async def _restart(inventory: Inventory, name: str) -> None:
    async with Remote(name, inventory.board(name)) as remote:
        probe = await remote.probe()
        await remote.run(remote.as_root(("systemctl", "restart", UNIT), probe))


async def _logs(inventory: Inventory, name: str, count: int) -> str:
    async with Remote(name, inventory.board(name)) as remote:
        return await last_lines(remote, count)


async def _follow(inventory: Inventory, name: str, count: int) -> int:
    async with Remote(name, inventory.board(name)) as remote:
        words = ("journalctl", "--unit", UNIT, "--lines", str(count), "--follow", "--output", "cat")
        script = remote.as_root(words, await remote.probe())
        process = await asyncio.create_subprocess_exec(*remote.interactive(script))
        return await process.wait()


async def _remove(inventory: Inventory, name: str, *, with_data: bool) -> None:
    async with Remote(name, inventory.board(name)) as remote:
        result = await remote.ask("remove", {"with_data": with_data})
    if result["left"]:
        raise BoardError(f"board {name}: could not be removed: {', '.join(result['left'])}")


COMMANDS: Final = (
    benchmark_command,
    deploy_command,
    fault_group,
    flash_command,
    image_command,
    prepare_command,
    ram_flips_command,
    restore_command,
)
for command in COMMANDS:
    board_group.add_command(command)
