"""What can be struck: the bench's side of the injector, and what a brown-out does to a satellite."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from flightsw.ports import Log, Random, ResetCause
from hil.bench.member import Member
from hil.bench.satellite import BOOT_S
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.faults.injector import Struck, details
from hil.faults.plan import LinkDegraded, NodeTrouble

NS_PER_S: Final = 1_000_000_000
BROWN_OUT_CHECK_S: Final = 120.0
"""A node that browned out looks for charge at this period [s]."""
BROWN_OUT_BOOT_SHARE: Final = 0.2
"""Charge share at which it boots again: LOW_POWER, but well above SAFE."""
REORDER_DELAY_S: Final = 0.05
"""How long a degraded link holds back a frame that it reorders [s]: some tens of frames."""


class Strikes:
    """Implements `hil.faults.injector.Strikable` on members of the fleet and links.

    Args:
        members: by name.
        links: channels by the link's name; a station with several antennas has several for each satellite.
        impairments: the undisturbed impairments of a link.
        now_ns: the present instant.
        record: takes (kind, fields) for the trace.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        links: Mapping[str, list[Link]],
        impairments: Callable[[str], Impairments],
        now_ns: Callable[[], int],
        record: Log,
    ) -> None:
        self._members = members
        self._links = links
        self._impairments = impairments
        self._now_ns = now_ns
        self._record = record
        self._degradations: dict[str, int] = {}
        """Link -> number of its newest degradation; an older one that ends must not undo it."""

    def reset_node(self, node: str, cause: str, off_s: float) -> bool:
        """Cut a node's power and boot it later."""
        member = self._members[node]
        if not member.is_on:
            return False
        member.cut()
        member.boot_later(off_s, ResetCause[cause])
        return True

    def break_link(self, link: str, duration_s: float) -> bool:
        """Stop both directions of a link."""
        now_ns = self._now_ns()
        for channel in self._links.get(link, []):
            channel.add_outage(now_ns, now_ns + round(duration_s * NS_PER_S))
        return link in self._links

    def degrade_link(self, link: str, fault: LinkDegraded) -> bool:
        """Worsen a link for a while."""
        if link not in self._links:
            return False
        base = self._impairments(link)
        self._set(
            link,
            replace(
                base,
                bit_error_rate=max(base.bit_error_rate, fault.bit_error_rate),
                loss=max(base.loss, fault.loss),
                duplicate=max(base.duplicate, fault.duplicate),
                reorder=max(base.reorder, fault.reorder),
                reorder_delay_s=max(base.reorder_delay_s, REORDER_DELAY_S),
            ),
        )
        number = self._degradations[link] = self._degradations.get(link, 0) + 1
        asyncio.get_running_loop().call_later(fault.duration_s, self._restore, link, number)
        return True

    def strike_weights(self, node: str, random: Random, bits: int) -> Struck:
        """Flip bits of a model in a node's memory."""
        return self._members[node].strike_weights(random, bits)

    def rot_object(self, node: str, random: Random) -> Struck:
        """Flip a bit of a stored object."""
        return self._members[node].rot_object(random)

    def loop_boots(self, node: str, cause: str, crashes: int, after_s: float) -> bool:
        """Crash a node, and again after each of its next boots."""
        if not self._members[node].is_on:
            return False
        self._crash(node, ResetCause[cause], crashes, after_s)
        return True

    def trouble(self, node: str, fault: NodeTrouble) -> Struck:
        """Let something around a node fail."""
        fields = details(fault)
        del fields["node"]
        return self._members[node].trouble(str(type(fault).__struct_config__.tag), fields)

    def brown_out(self, name: str, computing: bool) -> None:
        """A battery is empty: power is gone until the array has charged it. Called from inside the board: only
        schedules."""
        self._record("fault.brown_out", {"node": name, "computing": computing})
        loop = asyncio.get_running_loop()
        loop.call_soon(self._members[name].cut)
        loop.call_later(BROWN_OUT_CHECK_S, self._after_brown_out, name)

    def _crash(self, name: str, cause: ResetCause, crashes: int, after_s: float) -> None:
        member = self._members[name]
        if member.is_on:
            member.cut()
            member.boot_later(BOOT_S, cause)
            crashes -= 1
        if crashes:
            asyncio.get_running_loop().call_later(BOOT_S + after_s, self._crash, name, cause, crashes, after_s)

    def _after_brown_out(self, name: str) -> None:
        member = self._members[name]
        energy = member.energy()
        if energy is None or energy.charge_share < BROWN_OUT_BOOT_SHARE:
            asyncio.get_running_loop().call_later(BROWN_OUT_CHECK_S, self._after_brown_out, name)
        elif not member.is_on:
            member.boot(ResetCause.BROWN_OUT)

    def _restore(self, link: str, number: int) -> None:
        if self._degradations[link] == number:
            self._set(link, self._impairments(link))
            self._record("fault.link_restored", {"link": link})

    def _set(self, link: str, impairments: Impairments) -> None:
        for channel in self._links[link]:
            channel.set_impairments(impairments)
