"""An emulated board: one QEMU process, which dies with the bench.

| door | is |
|---|---|
| `uart_path` | Unix socket: the board's UART, `/dev/ttyAMA0`, which is our link's alone. QEMU knows no baud rate |
| `agent_path` | Unix socket: the virtio serial port `flatrack.agent` of the on-board fault agent |
| `console_path` | file: the kernel's and systemd's console, `/dev/hvc0` |
| `memory` | RAM, shared with the guest: bits flip without its help |
| `gdb_path` | Unix socket: the debugger's stub, where asked for |

QEMU runs the guest by translation (TCG), never by KVM: the same on every machine, on arm64 too. Power, freeze and
snapshots go over QMP. The guest's clock stands while it is frozen, and goes on from a snapshot where it was: who
restores one sets the clock over the agent.
"""

import asyncio
import errno
import os
import shlex
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from flightsw.errors import BoardError, ConfigError
from flightsw.host.control import PATH_BYTES_MAX
from flightsw.link.pacing import lab_s
from flightsw.ports import Random
from hil.child import Child
from hil.emulation import gdb, qmp
from hil.emulation.command_line import DISK, OVERLAY, RAM_MIB, RASPI3B_RAM_MIB, Wiring, arguments
from hil.emulation.disk import make_layer, make_overlay
from hil.emulation.image import ImageFiles
from hil.emulation.memory import GuestMemory
from hil.emulation.snapshot import WITHOUT_SHARED_RAM, Snapshot
from hil.emulation.tools import find
from hil.emulation.torn_writes import Torn, tear

QEMU: Final = "qemu-system-aarch64"
START_S_MAX: Final = 30.0
"""How long QEMU may take until it runs [s of the machine]: a few tenths alone, and others use the machine too."""
POLL_S: Final = 0.01
"""Time between two questions whether QEMU has read or written a snapshot [s of the machine]."""
CONSOLE_LOG: Final = "console.log"
QEMU_LOG: Final = "qemu.log"
LAST_WORDS_CHARACTERS: Final = 2_000
"""How much of a console a report takes: a stack of the kernel."""

BlockOperation = Literal["read", "write", "flush"]


class Machine:
    """One emulated board. Needs a running loop.

    Args:
        files: image that it boots.
        folder: for its sockets, console and disk; its path must be short enough for sockets.
        name: begins the names of those.
        origin: snapshot that the first start takes up; later starts are cold boots of the same disk.
        ram_mib: RAM [MiB].
        gdb: whether the debugger's stub is there.
        ssh_port: TCP port of this machine that leads to the guest's sshd; None for none.
        watchdog: whether the machine's watchdog resets the guest when nobody feeds it.
        on_end: told QEMU's exit code when it has ended, whoever ended it; -9 is a power cut.
        on_event: told of what QEMU reports: ("RESET", ...), ("WATCHDOG", ...), ("SHUTDOWN", ...).
    """

    def __init__(
        self,
        files: ImageFiles,
        folder: Path,
        name: str,
        *,
        origin: Snapshot | None = None,
        ram_mib: int = RAM_MIB,
        gdb: bool = False,
        ssh_port: int | None = None,
        watchdog: bool = True,
        on_end: Callable[[int], None] = lambda _: None,
        on_event: Callable[[str, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        self.files: Final = files
        self.name: Final = name
        self.ram_mib: Final = RASPI3B_RAM_MIB if files.target == "qemu-raspi3b" else ram_mib
        if origin is not None and origin.ram_mib != self.ram_mib:
            raise ConfigError(f"{name}: ram_mib = {self.ram_mib}: expected {origin.ram_mib}, as the snapshot has")
        self.uart_path: Final = folder / f"{name}.uart"
        self.agent_path: Final = folder / f"{name}.agent"
        self.gdb_path: Final = folder / f"{name}.gdb"
        self.console_path: Final = folder / f"{name}.console"
        self.disk_path: Final = folder / f"{name}.qcow2"
        self.memory: Final = GuestMemory(self.ram_mib << 20)
        self._layer_path: Final = folder / f"{name}.layer"
        self._log_path: Final = folder / f"{name}.log"
        self._qmp_path: Final = folder / f"{name}.qmp"
        self._error_path: Final = folder / f"{name}.qemu"
        self._origin = origin
        self._has_gdb = gdb
        self._ssh_port = ssh_port
        self._watchdog = watchdog
        self._on_end = on_end
        self._on_event = on_event
        self._qemu = Child(self._has_ended)
        self._qmp: qmp.Qmp | None = None
        self._exit_code: int | None = None
        self._filter = ""
        """Node between the guest and its disk: a fault, a recorder, or none."""
        longest = max(len(os.fsencode(path.absolute())) for path in (self.uart_path, self.agent_path))
        if longest > PATH_BYTES_MAX:
            raise ConfigError(f"{folder}: sockets in it would have paths of {longest} bytes, at most {PATH_BYTES_MAX}")

    # -- power

    @property
    def pid(self) -> int | None:
        """Of QEMU, while it runs."""
        return self._qemu.pid

    @property
    def exit_code(self) -> int | None:
        """Of QEMU, when it has ended by itself or by `kill`: 0 where the guest has switched the board off."""
        return self._exit_code

    async def start(self) -> None:
        """Power on: restores the snapshot it came with, or boots the disk; returns when the guest runs.

        Raises:
            ConfigError: QEMU is missing, or cannot be started.
            BoardError: QEMU ends at once, or does not answer; with its own words.
        """
        assert self.pid is None, f"{self.name} runs already"
        origin, self._origin = self._origin, None
        if origin is not None:
            origin.lay(self.memory, self.disk_path)
        elif not self.disk_path.exists():
            make_overlay(self.files.disk, self.disk_path)
        self._launch(*(() if origin is None else ("-incoming", "defer")))
        try:
            async with asyncio.timeout(lab_s(START_S_MAX)):
                self._qmp = await qmp.connect(self._qmp_path, self._on_event)
                await self._qmp.run("query-status")
                if origin is not None:
                    await self._take_up(origin)
                    await self.resume()  # a machine that never ran since is saved, and dies when that is restored
        except (TimeoutError, OSError, BoardError) as error:
            await self.kill()
            raise BoardError(
                f"{self.name}: QEMU does not run: {str(error) or 'no answer'}: {self.last_words()}"
            ) from None

    async def cut_torn(self, rng: Random) -> Torn:
        """Power cut after `record_writes`: of what was not flushed since, the disk has the sectors that chance kept.

        Raises:
            BoardError: nothing was recorded.
        """
        if self._filter != "recorder":
            raise BoardError(f"{self.name}: a torn power cut needs record_writes first")
        await self.kill()
        self._layer_path.unlink()
        return tear(self._log_path, self.disk_path, rng)

    async def kill(self) -> None:
        """Power cut: QEMU is gone, and with it RAM and all that the guest has not flushed. No effect without power."""
        self._qemu.signal(signal.SIGKILL)
        await self._qemu.ended()
        if self._qmp is not None:
            await self._qmp.close()
            self._qmp = None

    async def ended(self) -> None:
        """Return when QEMU has ended."""
        await self._qemu.ended()

    async def reset(self) -> None:
        """Pull the reset line: RAM stays. Raises: BoardError."""
        await self._run("system_reset")

    async def freeze(self) -> None:
        """Stop the guest between two instructions; its clock stands. Raises: BoardError."""
        await self._run("stop")

    async def resume(self) -> None:
        """Go on after a freeze. Raises: BoardError."""
        await self._run("cont")

    def abandon(self) -> None:
        """Kill QEMU and wait for its end without the loop: the last resort when the loop is about to go."""
        if self.pid is not None:
            self._qemu.abandon()
            self._lose_power()

    def close(self) -> None:
        """Give RAM and disk back."""
        self.abandon()
        self.memory.close()
        for path in (self.disk_path, self._layer_path, self._log_path):
            path.unlink(missing_ok=True)

    def cpu_s(self) -> float:
        """Processor time that QEMU has used [s]: more than nothing is a guest that works, or waits busily."""
        assert self.pid is not None, "it has power"
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # -- what it says

    def console(self) -> str:
        """All that it has printed on its console, in all boots, since it was last forgotten."""
        try:
            return self.console_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def forget_words(self) -> None:
        """Empty the console of a machine that was started; QEMU appends to it, so that it goes on at its beginning."""
        os.truncate(self.console_path, 0)

    def last_words(self) -> str:
        """The end of its console and of what QEMU said, for reports."""
        words = self._error_path.read_text(errors="replace") if self._error_path.exists() else ""
        return (self.console()[-LAST_WORDS_CHARACTERS:] + words[-LAST_WORDS_CHARACTERS:]).strip() or "(no word)"

    def keep_words(self, folder: Path) -> None:
        """Copy all that it and QEMU have said into a folder: `console.log` and `qemu.log`."""
        for path, name in ((self.console_path, CONSOLE_LOG), (self._error_path, QEMU_LOG)):
            if path.exists():
                shutil.copyfile(path, folder / name)

    # -- snapshots

    async def save(self, tag: str) -> None:
        """Save the running machine under a name, on its disk. Raises: BoardError."""
        self._check_no_filter()
        await self._monitor(f"savevm {tag}")

    async def load(self, tag: str) -> None:
        """Back to what was saved: RAM, devices and disk. Raises: BoardError."""
        self._check_no_filter()
        await self._monitor(f"loadvm {tag}")

    async def capture(self, folder: Path) -> Snapshot:
        """Save the running machine for others to start from; it has no power afterwards, saved or not.

        Args:
            folder: empty.

        Raises:
            BoardError: QEMU does not save it.
            ConfigError: the files cannot be written.
        """
        self._check_no_filter()
        snapshot = Snapshot(folder, self.ram_mib)
        await self.freeze()
        await self._share_ram(True)
        await self._run("migrate", uri=f"exec:cat > {shlex.quote(str(snapshot.state))}")
        while (status := (await self._run("query-migrate"))["status"]) not in ("completed", "failed"):
            await asyncio.sleep(lab_s(POLL_S))
        if status == "completed":
            snapshot.take(self.memory, self.disk_path)
        await self.kill()
        if status == "failed":
            raise BoardError(f"{self.name}: QEMU does not save it: {self.last_words()}")
        return snapshot

    # -- faults

    async def flip_code(self, address: int, bit: int) -> None:
        """Flip a bit of RAM through the debugger's stub, so that translated code follows; made with `gdb=True`.

        Raises:
            BoardError: there is no stub, or no memory at the address.
        """
        stub = await gdb.connect(self.gdb_path)
        try:
            await stub.flip(address, bit)
        finally:
            await stub.close()

    async def set_block_error(
        self, operation: BlockOperation, *, code: int = errno.EIO, sector: int | None = None, once: bool = False
    ) -> None:
        """From now on the disk answers an operation with an error.

        Args:
            operation: that fails.
            code: error number, as errno has it.
            sector: of 512 bytes that the operation must touch; None for any.
            once: only the first time.

        Raises:
            BoardError: the machine has no such disk, or has an error set already.
        """
        if self._filter:
            raise BoardError(f"{self.name}: a block error, or a recording, is set already")
        rule: dict[str, object] = {"event": "none", "iotype": operation, "errno": code, "once": once}
        if sector is not None:
            rule["sector"] = sector
        await self._run("blockdev-add", driver="blkdebug", node_name="fault", image=OVERLAY, inject_error=[rule])
        await self._attach("fault")

    async def clear_block_error(self) -> None:
        """The disk is well again. Raises: BoardError."""
        if self._filter == "fault":
            await self._attach(OVERLAY)
            await self._run("blockdev-del", node_name="fault")

    async def record_writes(self) -> None:
        """From now on keep all writes and flushes in their order, for a power cut that tears them (`cut_torn`).

        Raises:
            BoardError: a block error is set.
            ConfigError: qemu-img is missing.
        """
        if self._filter:
            raise BoardError(f"{self.name}: a block error, or a recording, is set already")
        make_layer(self.disk_path, self.files.disk.stat().st_size, self._layer_path)
        self._log_path.write_bytes(b"")
        layer = {"driver": "file", "filename": str(self._layer_path)}
        await self._run("blockdev-add", driver="qcow2", node_name="layer", file=layer, backing=OVERLAY)
        log = {"driver": "file", "filename": str(self._log_path)}
        await self._run(
            "blockdev-add",
            driver="blklogwrites",
            node_name="recorder",
            file="layer",
            log=log,
            log_super_update_interval=1,
        )
        await self._attach("recorder")

    async def _take_up(self, snapshot: Snapshot) -> None:
        """Read the state of the devices; the guest stands still."""
        await self._share_ram(True)
        await self._run("migrate-incoming", uri=f"exec:cat {shlex.quote(str(snapshot.state))}")
        while (await self._run("query-status"))["status"] == "inmigrate":
            await asyncio.sleep(lab_s(POLL_S))
        await self._share_ram(False)  # or snapshots of its own would lack RAM

    async def _share_ram(self, is_on: bool) -> None:
        """Whether RAM stays out of what is saved and restored."""
        capability = {"capability": WITHOUT_SHARED_RAM, "state": is_on}
        await self._run("migrate-set-capabilities", capabilities=[capability])

    def _check_no_filter(self) -> None:
        if self._filter:  # QEMU 7.2 leaves a drive that does not answer behind when it restores one below a filter
            raise BoardError(f"{self.name}: no snapshots with a block error or a recording set")

    async def _attach(self, node: str) -> None:
        """Let the guest's drive lead to a node; what is under way ends first."""
        await self._run("qom-set", path=DISK, property="drive", value=node)
        self._filter = "" if node == OVERLAY else node

    # -- inside

    async def _run(self, command: str, **arguments: Any) -> Any:
        if self._qmp is None:
            raise BoardError(f"{self.name}: {command}: it has no power")
        return await self._qmp.run(command, **arguments)

    async def _monitor(self, line: str) -> None:
        if self._qmp is None:
            raise BoardError(f"{self.name}: {line}: it has no power")
        if text := await self._qmp.monitor(line):  # these lines print errors alone
            raise BoardError(f"{self.name}: {line}: {text}")

    def _launch(self, *more: str) -> None:
        """Start QEMU. The bench listens on its sockets before it, so that who connects never comes too early.

        Args:
            more: arguments of QEMU.
        """
        qemu = find(QEMU)
        listeners: list[socket.socket] = []
        try:
            for path in (self.uart_path, self._qmp_path, self.agent_path):
                listeners.append(_listen(path))
            uart, control, agent = (listener.fileno() for listener in listeners)
            wiring = Wiring(
                disk=self.disk_path,
                console=self.console_path,
                memory_fd=self.memory.fd,
                uart_fd=uart,
                control_fd=control,
                agent_fd=agent,
                gdb=self.gdb_path if self._has_gdb else None,
                ssh_port=self._ssh_port,
                watchdog_resets=self._watchdog,
            )
            command = [qemu, *arguments(self.files, wiring, self.ram_mib), *more]
            with self._error_path.open("wb") as words:
                self._qemu.start(command, out=words, err=words, fds=(self.memory.fd, uart, control, agent))
        except OSError as error:
            raise ConfigError(f"{self.name}: QEMU cannot be started: {error.strerror}") from None
        finally:
            for listener in listeners:
                listener.close()

    def _has_ended(self, code: int) -> None:
        self._exit_code = code
        self._lose_power()
        self._on_end(code)

    def _lose_power(self) -> None:
        """What goes with it: RAM, and faults of the disk."""
        self._filter = ""
        self.memory.clear()


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    return listener
