"""The snapshot `ready`: a board that has booted, loaded its program and waits for its settings.

A boot takes half a minute, so one board boots for all of them. What is restored from it has not been told yet who it
is: the on-board fault agent gives it its settings, and the node begins. All boards of one snapshot also share what the
kernel has gathered of entropy; the agent stirs in some of the bench's when it configures one.
"""

import asyncio
from pathlib import Path
from typing import Final

from flightsw.errors import BoardError, LinkError
from flightsw.host import control
from flightsw.link.pacing import lab_s
from hil.emulation.cache import made_once
from hil.emulation.command_line import RAM_MIB
from hil.emulation.image import ImageFiles
from hil.emulation.machine import Machine
from hil.emulation.snapshot import Snapshot
from hil.emulation.tools import scratch_folder

TAG: Final = "ready"
WAITS: Final = "boards: waits for"
"""What the program says on the console (`boards.waiting`)."""
BOOT_S_MAX: Final = 240.0
"""How long a boot may take until the program waits [s of the machine]: 25 s alone on two cores; others share them."""
POLL_S: Final = 0.2
SETTLE_S: Final = 2.0
"""How long the board is left alone before it is saved [s of the machine]: systemd ends what the boot has begun."""


async def ready_snapshot(files: ImageFiles, *, ram_mib: int = RAM_MIB) -> Snapshot:
    """The snapshot of an image, from the cache beside it, or made by one boot. Needs a running loop.

    Another process that makes it is waited for.

    Raises:
        ConfigError: QEMU is missing.
        BoardError: the board does not come up; with the end of its console.
    """
    path = files.disk.with_name(f"{TAG}-{ram_mib}")
    await made_once(path, lambda new: _boot_and_save(files, ram_mib, new))
    return Snapshot(path, ram_mib)


async def wait_for_console(machine: Machine, words: str, timeout_s: float = BOOT_S_MAX) -> None:
    """Return when a machine has printed these words on its console, in this or an earlier boot.

    Raises:
        BoardError: it ended, or the time [s of the machine] is over; with the end of its console.
    """
    try:
        async with asyncio.timeout(lab_s(timeout_s)):
            while words not in machine.console():
                if machine.pid is None:
                    raise BoardError(f"{machine.name}: QEMU has ended before {words!r}: {machine.last_words()}")
                await asyncio.sleep(lab_s(POLL_S))
    except TimeoutError:
        raise BoardError(f"{machine.name}: no {words!r} within {timeout_s:g} s: {machine.last_words()}") from None


async def wait_for_agent(machine: Machine, timeout_s: float = BOOT_S_MAX) -> None:
    """Return when the on-board fault agent answers.

    Raises:
        BoardError: it does not in time [s of the machine]; with the end of the board's console.
    """
    try:
        async with asyncio.timeout(lab_s(timeout_s)):
            peer = await control.connect(machine.agent_path, {})
            try:
                await peer.call("hello")
            finally:
                peer.close()
                await peer.closed
    except (TimeoutError, LinkError) as error:
        raise BoardError(
            f"{machine.name}: no agent: {str(error) or f'{timeout_s:g} s'}: {machine.last_words()}"
        ) from None


async def _boot_and_save(files: ImageFiles, ram_mib: int, to: Path) -> None:
    with scratch_folder() as folder:
        machine = Machine(files, Path(folder), TAG, ram_mib=ram_mib)
        try:
            await machine.start()
            await wait_for_console(machine, WAITS)
            await wait_for_agent(machine)
            await asyncio.sleep(lab_s(SETTLE_S))
            await machine.capture(to)
        finally:
            await machine.kill()
            machine.close()
