"""QEMU's debugger door: reads and writes guest memory through the emulator, so that translated code follows.

Source: GDB, Remote Serial Protocol (packets and `m`, `M`, `D`); QEMU 7.2, docs/system/gdb.rst (physical memory mode).
"""

import asyncio
from pathlib import Path

from flightsw.errors import BoardError


class GdbStub:
    """A connection to the stub; the guest stands still while it is open, as a debugger wants it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def flip(self, address: int, bit: int) -> None:
        """Flip one bit, 0 to 7, of the byte at a physical address.

        Raises:
            BoardError: nothing is there.
        """
        (value,) = await self.read(address, 1)
        await self._expect_ok(b"M%x,1:%02x" % (address, value ^ (1 << bit)))

    async def read(self, address: int, count: int) -> bytes:
        """Bytes from a physical address on. Raises: BoardError: nothing is there."""
        answer = await self._run(b"m%x,%x" % (address, count))
        if answer.startswith(b"E"):
            raise BoardError(f"gdb stub: no memory at {address:#x}")
        return bytes.fromhex(answer.decode())

    async def close(self) -> None:
        """Let the guest go on, and go."""
        await self._run(b"D")
        self._writer.close()

    async def _expect_ok(self, command: bytes) -> None:
        answer = await self._run(command)
        if answer != b"OK":
            raise BoardError(f"gdb stub: {command.decode()}: {answer.decode(errors='replace')}")

    async def _run(self, command: bytes) -> bytes:
        self._writer.write(b"$" + command + b"#%02x" % (sum(command) & 0xFF))
        while True:
            try:
                await self._reader.readuntil(b"$")
                packet = (await self._reader.readuntil(b"#"))[:-1]
                await self._reader.readexactly(2)
            except (asyncio.IncompleteReadError, OSError):
                raise BoardError("gdb stub: QEMU has ended") from None
            self._writer.write(b"+")
            if command == b"?" or not packet.startswith((b"T", b"S")):  # stop replies come unasked
                return packet


async def connect(path: Path) -> GdbStub:
    """Stop the guest and speak of physical addresses.

    Raises:
        BoardError: nobody answers as QEMU's stub does.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError as error:
        raise BoardError(f"gdb stub {path}: {error.strerror or error}; was the machine made with gdb=True?") from None
    stub = GdbStub(reader, writer)
    await stub._run(b"?")
    await stub._expect_ok(b"Qqemu.PhyMemMode:1")
    return stub
