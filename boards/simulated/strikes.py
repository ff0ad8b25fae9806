"""Carries out faults around one node: on its board, its worker, its disk, its clock and its answers to health.

A fault is a kind and its fields, as a scenario has them (`hil.faults.plan`). A satellite of the bench and a program of
its own use the same.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from boards.simulated.board import SimulatedBoard
from boards.simulated.troubles import POWERLESS_CAUSES, SensorTrouble
from flightsw.core.health import Health
from flightsw.ports import ResetCause

PROGRAM: Final = "program"
"""The party that stands for all of the manager."""
NS_PER_S: Final = 1_000_000_000
STANDS_STILL_AGAIN_S: Final = 20.0
"""After how long of a boot a manager stands still again [s] for what only a power cycle ends: a boot gets so far that
it can judge why it boots."""


class Fillable(Protocol):
    """A disk that can be made smaller."""

    capacity_bytes: int

    def free_bytes(self) -> int:
        """What still fits."""
        ...


class Hangable(Protocol):
    """A runner whose worker can be made to hang."""

    def hang(self, outlives_restart: bool = False) -> None:
        """Let no step end from now on, until the worker is started anew or beyond that."""
        ...


class BoardStrikes:
    """Strikes what surrounds one node. Needs a running event loop.

    Args:
        board: its board.
        disk: its disk.
        jump: steps its mission time [ns].
        freeze: lets its whole manager stand still.
    """

    def __init__(
        self, board: SimulatedBoard, disk: Fillable, jump: Callable[[int], None], freeze: Callable[[], object]
    ) -> None:
        self._board = board
        self._disk = disk
        self._jump = jump
        self._freeze = freeze
        self._runner: Hangable | None = None
        self._health: Health | None = None
        self._hangs: dict[str, str] = {}
        """Party -> what ends its hang; the worker's is under the empty name."""
        self._capacity_bytes = disk.capacity_bytes
        self._boots_count = 0
        self._heats_count = 0
        self._fills_count = 0

    def booted(self, cause: ResetCause, runner: Hangable, health: Health) -> None:
        """The node has booted: what a boot does not end hangs on."""
        self._runner, self._health = runner, health
        self._boots_count += 1
        if cause in POWERLESS_CAUSES:
            self._hangs.clear()
        self._hangs = {party: clears for party, clears in self._hangs.items() if clears == "power_cycle"}
        for party in self._hangs:
            if party == PROGRAM:
                loop = asyncio.get_running_loop()
                loop.call_later(STANDS_STILL_AGAIN_S, self._stand_still_again, self._boots_count)
            else:
                self._hang(party)

    def off(self) -> None:
        """The node is off."""
        self._runner = self._health = None

    def strike(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Carry out a fault; says whether it hit anything."""
        match kind:
            case "worker_hang":
                return self._start_hang("", fields["clears"])
            case "component_hang":
                return self._start_hang(fields["party"], fields["clears"])
            case "sensor_fault":
                self._break_sensor(fields["sensor"], SensorTrouble(fields["how"]), fields.get("duration_s"))
            case "latch_up":
                if self._runner is None:
                    return False  # without power nothing latches up
                self._board.latch_up(fields["extra_w"])
            case "heat":
                self._block_radiator(fields["radiator_share"], fields["duration_s"])
            case "disk_full":
                self._fill_disk(fields["free_bytes"], fields["duration_s"])
            case "clock_jump":
                self._jump(round(fields["jump_s"] * NS_PER_S))
            case _:
                return False
        return True

    def _start_hang(self, party: str, clears: str) -> bool:
        if self._runner is None or self._health is None:
            return False
        if party not in ("", PROGRAM) and party not in self._health.parties:
            return False
        self._hangs[party] = clears
        self._hang(party)
        return True

    def _hang(self, party: str) -> None:
        assert self._runner is not None, "only a running node hangs"
        assert self._health is not None, "and it has a health"
        if party == PROGRAM:
            self._freeze()
        elif party == "":
            self._runner.hang(outlives_restart=self._hangs[party] != "restart")
        else:
            _silence(self._health, party, ends_with_restart=self._hangs[party] == "restart")

    def _stand_still_again(self, boot: int) -> None:
        if boot == self._boots_count and self._runner is not None:
            self._freeze()

    def _break_sensor(self, sensor: str, how: SensorTrouble, duration_s: float | None) -> None:
        self._board.break_sensor(sensor, how)
        if duration_s is not None:
            asyncio.get_running_loop().call_later(duration_s, self._board.mend_sensors, sensor)

    def _block_radiator(self, share: float, duration_s: float) -> None:
        self._board.set_radiator_share(share)
        self._heats_count += 1
        asyncio.get_running_loop().call_later(duration_s, self._open_radiator, self._heats_count)

    def _open_radiator(self, number: int) -> None:
        if number == self._heats_count:  # else a later fault holds
            self._board.set_radiator_share(1.0)

    def _fill_disk(self, free_bytes: int, duration_s: float) -> None:
        used_bytes = self._disk.capacity_bytes - self._disk.free_bytes()
        self._disk.capacity_bytes = min(self._capacity_bytes, used_bytes + free_bytes)
        self._fills_count += 1
        asyncio.get_running_loop().call_later(duration_s, self._empty_disk, self._fills_count)

    def _empty_disk(self, number: int) -> None:
        if number == self._fills_count:
            self._disk.capacity_bytes = self._capacity_bytes


class _DeafTo(list[int]):
    """Answers of members, of which one never comes."""

    deaf_to = -1

    def __setitem__(self, index: Any, answer: Any) -> None:
        if index != self.deaf_to:
            super().__setitem__(index, answer)


def _silence(health: Health, party: str, *, ends_with_restart: bool) -> None:
    """Keep the answers of one party from its node's health, as if it had stopped in the middle of its work."""
    index = health.parties[party].index
    if index >= 0:
        answers = _DeafTo(health._answers)
        answers.deaf_to = index
        health._answers = answers
        return
    reply, restarted = health.reply, health.restarted

    def deaf(who: str, key: int, now_ns: int) -> None:
        if who != party:
            reply(who, key, now_ns)

    def hearing_again(who: str) -> None:
        if who == party and ends_with_restart:
            health.__dict__.pop("reply", None)
        restarted(who)

    health.__dict__["reply"] = deaf
    health.__dict__["restarted"] = hearing_again
