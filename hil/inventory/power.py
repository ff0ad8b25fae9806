"""The plug of a board: on, off, and off and on again.

| kind | what switches |
|---|---|
| `usb_hub` | a hub that can cut the 5 V of a port, by `uhubctl` |
| `network_relay` | a plug with the Tasmota firmware, by HTTP: `GET /cm?cmnd=Power1%20On` answers `{"POWER1":"ON"}` |
| `command` | programs of one's own |
| `emulator` | a machine under QEMU, by its QMP socket |
| `manual` | a person, who is asked |

Sources: uhubctl's README (`-l`, `-p`, `-a`); Tasmota's documentation, "Commands", section Control, Power<x>; QEMU's
QMP reference, stop, cont, system_reset.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, urlsplit

import click

from flightsw.errors import BoardError, ConfigError
from flightsw.link.pacing import lab_s
from hil.inventory.boards import Command, Emulator, Manual, NetworkRelay, PowerSettings, UsbHub

ANSWER_S: Final = 10.0
"""Longest wait for what switches [s]: uhubctl takes one, a plug half."""
ANSWER_BYTES_MAX: Final = 65_536
"""Longest answer of a plug [bytes]: it says one word, in some hundred bytes of HTTP."""
WORDS_CHARACTERS_MAX: Final = 200
"""How much of what a program or plug said an error shows: some lines."""
HTTP_OK: Final = 200

Ask = Callable[[str], None]
"""Says to a person what to do, and returns when it is done."""


class Power(ABC):
    """The plug of one board.

    Args:
        off_s: how long a power cycle stays off [s].
    """

    def __init__(self, off_s: float) -> None:
        self._off_s = off_s

    @abstractmethod
    async def on(self) -> None:
        """Give the board power. Raises: BoardError: what switches has failed. ConfigError: it is not there."""

    @abstractmethod
    async def off(self) -> None:
        """Take the power away. Raises: as `on`."""

    async def cycle(self) -> None:
        """Off and on again. Raises: as `on`."""
        await self.off()
        await asyncio.sleep(lab_s(self._off_s))
        await self.on()


class CommandPower(Power):
    """Programs that switch."""

    def __init__(self, on: tuple[str, ...], off: tuple[str, ...], off_s: float) -> None:
        super().__init__(off_s)
        self._on = on
        self._off = off

    async def on(self) -> None:
        """Give the board power."""
        await _run(self._on)

    async def off(self) -> None:
        """Take the power away."""
        await _run(self._off)


class RelayPower(Power):
    """A plug with the Tasmota firmware."""

    def __init__(self, settings: NetworkRelay) -> None:
        super().__init__(settings.off_s)
        parts = urlsplit(settings.url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"power network_relay: url = {settings.url!r}, expected http://host[:port]")
        self._host, self._port = parts.hostname, parts.port or 80
        self._relay = settings.relay

    async def on(self) -> None:
        """Give the board power."""
        await self._switch("On")

    async def off(self) -> None:
        """Take the power away."""
        await self._switch("Off")

    async def _switch(self, state: str) -> None:
        where = f"power network_relay {self._host}:{self._port}"
        try:
            async with asyncio.timeout(lab_s(ANSWER_S)):
                status, body = await self._get(f"/cm?cmnd={quote(f'Power{self._relay} {state}')}")
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise BoardError(f"{where}: {str(error) or type(error).__name__}") from None
        try:
            answer = json.loads(body)
            said = answer.get(f"POWER{self._relay}", answer.get("POWER" if self._relay == 1 else ""))
        except (ValueError, AttributeError):
            said = None
        if status != HTTP_OK or said != state.upper():
            shown = body[:WORDS_CHARACTERS_MAX].decode(errors="replace")
            raise BoardError(f"{where}: answered {status} {shown!r}, expected power {state.upper()}")

    async def _get(self, path: str) -> tuple[int, bytes]:
        """One request of HTTP/1.0: the answer ends with the connection."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=ANSWER_BYTES_MAX)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {self._host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(None, 2)[1])
            return status, await reader.read(ANSWER_BYTES_MAX)
        except IndexError:
            raise ValueError("no answer of HTTP") from None
        finally:
            await _close(writer)


class EmulatorPower(Power):
    """A machine under QEMU. It cannot be off and keep its process: off is frozen, and a cycle is a reset."""

    def __init__(self, settings: Emulator) -> None:
        super().__init__(settings.off_s)
        self._path = settings.qmp

    async def on(self) -> None:
        """Let the machine run."""
        await self._execute("cont")

    async def off(self) -> None:
        """Freeze it."""
        await self._execute("stop")

    async def cycle(self) -> None:
        """Reset it."""
        await self._execute("system_reset")
        await self._execute("cont")

    async def _execute(self, command: str) -> None:
        try:
            async with asyncio.timeout(lab_s(ANSWER_S)):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    await reader.readline()  # the greeting
                    for one in ("qmp_capabilities", command):
                        writer.write(json.dumps({"execute": one}).encode() + b"\n")
                        await _answer(reader)
                finally:
                    await _close(writer)
        except (OSError, ValueError) as error:
            raise BoardError(f"power emulator {self._path}: {command}: {str(error) or type(error).__name__}") from None


class ManualPower(Power):
    """A person at the bench.

    Args:
        off_s: how long a power cycle stays off [s].
        ask: says what to do, and returns when it is done.
    """

    def __init__(self, off_s: float, ask: Ask) -> None:
        super().__init__(off_s)
        self._ask = ask

    async def on(self) -> None:
        """Have the plug put in."""
        self._ask("Give the board power")

    async def off(self) -> None:
        """Have the plug pulled."""
        self._ask("Take the board's power away")


def open_power(settings: PowerSettings | None, name: str = "", ask: Ask | None = None) -> Power:
    """What switches a board's power.

    Args:
        settings: of the inventory.
        name: of the board, for errors and questions.
        ask: how a person is asked; by default on the terminal.

    Raises:
        ConfigError: the board has no `power`, or a field is wrong.
    """
    match settings:
        case UsbHub():
            hub = ("uhubctl", "-l", settings.location, "-p", str(settings.port), "-a")
            return CommandPower((*hub, "on"), (*hub, "off"), settings.off_s)
        case NetworkRelay():
            return RelayPower(settings)
        case Command():
            return CommandPower(settings.on, settings.off, settings.off_s)
        case Emulator():
            return EmulatorPower(settings)
        case Manual():
            return ManualPower(settings.off_s, ask or _ask_person(name))
        case None:
            raise ConfigError(f"board {name}: has no power, expected one in the inventory: power = {{ kind = ... }}")


def _ask_person(name: str) -> Ask:
    def ask(what: str) -> None:
        click.prompt(f"{name}: {what}, then press Enter", default="", show_default=False)

    return ask


async def _run(command: tuple[str, ...]) -> None:
    """Run a program to its end. Raises: ConfigError: it is not there. BoardError: it failed, or does not end."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise ConfigError(f"power: {command[0]}: {error.strerror}, expected a program that switches") from None
    try:
        async with asyncio.timeout(lab_s(ANSWER_S)):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise BoardError(f"power: {' '.join(command)}: has not ended within {ANSWER_S:g} s") from None
    if process.returncode:
        words = said.decode(errors="replace").strip()[-WORDS_CHARACTERS_MAX:]
        raise BoardError(f"power: {' '.join(command)}: ended with {process.returncode}: {words}")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # the other end may have been faster
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> None:
    """The answer to a command; events come in between. Raises: ValueError: it is an error, or the machine has gone."""
    while line := await reader.readline():
        message: dict[str, Any] = json.loads(line)
        if "return" in message:
            return
        if "error" in message:
            raise ValueError(message["error"].get("desc", "refused"))
    raise ValueError("the machine has gone")
