"""Rate groups: everything periodic on board runs in one of three groups, in a fixed order (F Prime's word and idea).

A group has a grid of deadlines from the start of the boot on; a cycle that comes late does not move those behind it. A
cycle that comes a whole period late, or more, takes the place of those that it missed: they have slipped, which is
counted and reported. A group without members has no deadlines and costs nothing.
"""

from collections.abc import Callable, Mapping
from enum import Enum, unique
from typing import Final

Member = Callable[[int], None]
"""Called with the monotonic time [ns] in each cycle of its group."""
SLACK_SHARE: Final = 10
"""A tenth of a period: more than cycles of a machine that keeps up are late, and far less than the next one is away."""


def slack_ns(period_ns: int) -> int:
    """How long before its time something counts as due in a group of this period [ns].

    Each cycle is late by another time, the deadlines stay. Who did something in a cycle that was 5 ms late and looks
    again in one that is 1 ms late finds less than a period gone, and would leave every second one out.
    """
    return period_ns // SLACK_SHARE


@unique
class Rate(Enum):
    """The groups, the fastest first: where cycles of several are due at once, they run in this order."""

    FAST = "fast"
    NORMAL = "normal"
    SLOW = "slow"


class _Group:
    """One group: members by their place in the cycle."""

    __slots__ = ("deadline_ns", "members", "period_ns")

    def __init__(self, period_ns: int) -> None:
        self.period_ns = period_ns
        self.deadline_ns = 0
        self.members: tuple[tuple[int, Member], ...] = ()


class RateGroups:
    """The rate groups of one boot.

    Args:
        periods_ns: period of each group [ns].
        start_ns: the first deadline of every group [ns, monotonic].
        on_slip: told of (group, cycles) that were left out.
    """

    def __init__(self, periods_ns: Mapping[Rate, int], start_ns: int, on_slip: Callable[[str, int], None]) -> None:
        assert all(period_ns > 0 for period_ns in periods_ns.values()), "a period of nothing is no period"
        self._start_ns = start_ns
        self._on_slip = on_slip
        self._groups = {rate: _Group(periods_ns[rate]) for rate in Rate}
        self.slipped_count = 0
        """Cycles of all groups that were left out since boot."""

    def period_ns(self, rate: Rate) -> int:
        """Period of a group [ns]."""
        return self._groups[rate].period_ns

    def join(self, rate: Rate, place: int, member: Member, now_ns: int) -> None:
        """Let a member run in each cycle of a group from its next deadline on.

        Args:
            rate: the group.
            place: where in the cycle; each place of a group has one member, and lower ones run first.
            member: what runs.
            now_ns: monotonic time [ns].
        """
        group = self._groups[rate]
        assert place not in dict(group.members), f"place {place} of group {rate.value} has a member"
        if not group.members:
            missed = max(0, -(-(now_ns - self._start_ns) // group.period_ns))
            group.deadline_ns = self._start_ns + missed * group.period_ns
        group.members = tuple(sorted((*group.members, (place, member)), key=lambda one: one[0]))

    def leave(self, rate: Rate, place: int) -> None:
        """Let a member run no more; no error when nobody has the place."""
        group = self._groups[rate]
        group.members = tuple(one for one in group.members if one[0] != place)

    def next_deadline_ns(self) -> int | None:
        """When the next cycle is due [ns, monotonic]; None when no group has members."""
        first_ns = None
        for group in self._groups.values():
            if group.members and (first_ns is None or group.deadline_ns < first_ns):
                first_ns = group.deadline_ns
        return first_ns

    def run(self, now_ns: int) -> None:
        """Run what is due. Members may join and leave meanwhile, from the next cycle of a group on."""
        for rate, group in self._groups.items():
            if not group.members or now_ns < group.deadline_ns:
                continue
            late_ns = now_ns - group.deadline_ns
            slipped = late_ns // group.period_ns
            group.deadline_ns += (slipped + 1) * group.period_ns
            if slipped:
                self.slipped_count += slipped
                self._on_slip(rate.value, slipped)
            for _, member in group.members:
                member(now_ns)
