"""Health: pings with keys, and a watchdog that is stroked only while all replies are in time.

Each supervised party is asked with a key that was never used before, and must reply with the same key. One that owes
its reply for `warn_ns` is reported; one that owes it for `fatal_ns`, or that replies with a wrong key, is hung: from
then on the watchdog is not stroked, until the party replies late or is started again. So a party that is missing
counts as one that hangs. What is done about a hung party, `flightsw.core.escalation` decides; when nothing is done, or
does not help, the watchdog expires and resets the node from outside.

There are two kinds of parties. *Members* of a rate group are asked in every cycle, all with that round's key, and reply
by returning; one that was silent owes its reply since the first round that it missed. *Tasks* are asked by a call, each
with a key of its own and no sooner than its period, for it wakes them. A task whose work takes long says until when
(`busy`), and is not late before, but not for longer than `BUSY_NS_MAX`.

The words are those of F Prime's Svc::Health. Its watchdog is stroked whether replies are in time or not; ours is not.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, unique
from typing import Any, Final, NamedTuple

from flightsw.component import OK, Handler, Outcome, Report, Scalar
from flightsw.wire.messages import CommandCode

PARTIES_MAX: Final = 64
"""Parties of one node: every machine with a cycle and every task, twice over."""

BUSY_NS_MAX: Final = 3_600_000_000_000
"""Longest work that a party may announce [ns]: an hour, more than any step of a job takes on the slowest board."""

NEVER_NS: Final = -(2**63)
"""An instant before all others."""

NS_PER_S: Final = 1_000_000_000


class Party(NamedTuple):
    """Who is supervised, and how."""

    name: str
    warn_ns: int
    """Owes its reply for so long: reported [ns]."""
    fatal_ns: int
    """Owes its reply for so long: hung [ns]."""
    period_ns: int = 0
    """A task is asked again no sooner than this after it was last asked [ns]."""
    ping: Callable[[int], None] | None = None
    """How a task is asked with a key; None for a member of a rate group."""
    restart: Callable[[], None] | None = None
    """How it is started again; None for one that only a reset of the node starts again."""


@unique
class Standing(IntEnum):
    """How a party stands."""

    WELL = 0
    SLOW = 1
    HUNG = 2


class _State:
    """What health knows of one party."""

    __slots__ = ("asked_ns", "busy_until_ns", "index", "is_enabled", "is_lost", "owed", "party", "standing")

    def __init__(self, party: Party, index: int) -> None:
        self.party = party
        self.index = index
        """Of a member among the answers; -1 for a task."""
        self.owed = 0
        """Of a task: the key that it must reply with; 0: none."""
        self.asked_ns = NEVER_NS
        """When a task was asked last; since when a member owes its reply, `NEVER_NS` while it does not."""
        self.busy_until_ns = NEVER_NS
        self.standing = Standing.WELL
        self.is_lost = False
        """It replied with a wrong key: only a restart counts from then on."""
        self.is_enabled = True

    def forget(self) -> None:
        """Nothing is owed."""
        self.owed, self.asked_ns, self.busy_until_ns = 0, NEVER_NS, NEVER_NS
        self.standing, self.is_lost = Standing.WELL, False


class Health:
    """Implements `flightsw.component.Component`.

    Args:
        report: takes events.

    The owner calls `cycle` in each rate group cycle and strokes the watchdog when it says so.
    """

    name = "HEALTH"

    def __init__(self, report: Report) -> None:
        self.parties: dict[str, _State] = {}
        """Who is supervised, in the order in which they were added."""
        self._report = report
        self._members: list[_State] = []
        self._tasks: list[_State] = []
        self._answers: list[int] = []
        """The key with which each member last replied."""
        self._key = 0
        """The last that was asked with; of members, that of the round."""
        self._round = 0
        self._round_ns = NEVER_NS
        self._is_uneven = False
        """Whether some member must be looked at, although all have replied in this round."""
        self._now_ns = 0
        self.strokes_count = 0
        self.refused_count = 0
        """Cycles in which the watchdog was not stroked."""
        self.slow_count = 0
        self.hung_count = 0
        self.wrong_keys_count = 0
        self.restarts_count = 0

    def add(self, party: Party) -> None:
        """Supervise a party from the next cycle on."""
        assert 0 < party.warn_ns <= party.fatal_ns, f"{party.name}: warn before judging"
        assert party.name not in self.parties, f"two parties are named {party.name}"
        assert len(self.parties) < PARTIES_MAX, f"more than {PARTIES_MAX} parties"
        if party.ping is None:
            state = _State(party, len(self._members))
            self._members.append(state)
            self._answers.append(self._round)
        else:
            state = _State(party, -1)
            self._tasks.append(state)
        self.parties[party.name] = state

    # -- pings

    def cycle(self, now_ns: int) -> bool:
        """Judge what is owed, ask again; says whether the watchdog is to be stroked."""
        self._now_ns = now_ns
        is_sound = True
        if self._is_uneven or self._answers.count(self._round) != len(self._answers):
            is_sound = self._judge_members(now_ns)
        for task in self._tasks:
            if task.owed or task.is_lost:
                owed_ns = now_ns - max(task.asked_ns, task.busy_until_ns)
                is_sound = self._is_in_time(task, owed_ns, now_ns) and is_sound
            elif now_ns - task.asked_ns >= task.party.period_ns:
                self._ask(task, now_ns)
        self._key += 1
        self._round, self._round_ns = self._key, now_ns
        if is_sound:
            self.strokes_count += 1
        else:
            self.refused_count += 1
        return is_sound

    def asked(self, party: str) -> int:
        """The key that a party must reply with now; 0: none."""
        state = self.parties[party]
        if state.index < 0:
            return state.owed
        return 0 if self._answers[state.index] == self._round else self._round

    def reply(self, party: str, key: int, now_ns: int) -> None:
        """A party answers its ping."""
        state = self.parties[party]
        asked = self.asked(party)
        if key != asked or not key:
            self._lose(state, key, asked)
        elif state.index >= 0:
            self._answers[state.index] = key
        else:
            state.owed = 0
            if not state.is_lost:
                self._is_back(state, now_ns)

    def busy(self, party: str, until_ns: int) -> None:
        """A task is at work until about this instant, and may owe its reply so long."""
        self.parties[party].busy_until_ns = min(until_ns, self._now_ns + BUSY_NS_MAX)

    def supervised(self, cycles: Sequence[Callable[[int], object]]) -> Callable[[int], None]:
        """The cycles of the members that were added last, one after the other: each replies by returning, but not with
        False."""
        first = len(self._members) - len(cycles)
        assert first >= 0, "members are added before their cycles"
        cycles = tuple(cycles)

        def attended(now_ns: int) -> None:
            answers, key = self._answers, self._round
            index = first
            for cycle in cycles:
                if cycle(now_ns) is not False:
                    answers[index] = key
                index += 1

        return attended

    # -- hung parties

    def hung(self) -> list[str]:
        """Who hangs now, in their order; usually nobody."""
        found = self.parties.values()
        return [state.party.name for state in found if state.standing is Standing.HUNG and state.is_enabled]

    def can_restart(self, party: str) -> bool:
        """Whether a party can be started again without the node."""
        return self.parties[party].party.restart is not None

    def restart(self, party: str) -> None:
        """Start a party again; it is asked anew in the next cycle."""
        restart = self.parties[party].party.restart
        assert restart is not None, f"{party} restarts only with the node"
        self.restarts_count += 1
        self._report("HEALTH.RESTARTED", party)
        restart()
        self.restarted(party)

    def restarted(self, party: str) -> None:
        """A party was started again: nothing is owed."""
        state = self.parties[party]
        state.forget()
        if state.index >= 0:
            self._answers[state.index] = self._round

    # -- the component

    def handlers(self) -> Mapping[str, Handler]:
        """ENABLE, DISABLE, RESTART."""
        return {"ENABLE": self._do_enable, "DISABLE": self._do_disable, "RESTART": self._do_restart}

    def channels(self) -> Mapping[str, Scalar]:
        """Counters since boot, and who hangs."""
        return {
            "strokes": self.strokes_count,
            "refused": self.refused_count,
            "slow": self.slow_count,
            "hung": self.hung_count,
            "wrong_keys": self.wrong_keys_count,
            "restarts": self.restarts_count,
            "hanging": ",".join(self.hung())[:512],
            "disabled": sum(not state.is_enabled for state in self.parties.values()),
        }

    # -- inside

    def _ask(self, task: _State, now_ns: int) -> None:
        assert task.party.ping is not None, "a task is asked by a call"
        self._key += 1
        task.owed, task.asked_ns = self._key, now_ns
        task.party.ping(self._key)

    def _judge_members(self, now_ns: int) -> bool:
        """Look at every member; says whether the watchdog may be stroked."""
        is_sound, is_uneven = True, False
        for state in self._members:
            if self._answers[state.index] == self._round and not state.is_lost:
                self._is_back(state, now_ns)
                state.asked_ns = NEVER_NS
                continue
            if state.asked_ns == NEVER_NS:
                state.asked_ns = self._round_ns
            is_uneven = True
            is_sound = self._is_in_time(state, now_ns - state.asked_ns, now_ns) and is_sound
        self._is_uneven = is_uneven
        return is_sound

    def _is_in_time(self, state: _State, owed_ns: int, now_ns: int) -> bool:
        """Whether a party that owes its reply lets the watchdog be stroked."""
        if not state.is_enabled:
            return True
        if state.is_lost or state.standing is Standing.HUNG:
            return False
        since_s = (now_ns - state.asked_ns) / NS_PER_S
        if owed_ns >= state.party.fatal_ns:
            state.standing = Standing.HUNG
            self.hung_count += 1
            self._report("HEALTH.HUNG", state.party.name, since_s)
            return False
        if owed_ns >= state.party.warn_ns and state.standing is Standing.WELL:
            state.standing = Standing.SLOW
            self.slow_count += 1
            self._report("HEALTH.SLOW", state.party.name, since_s)
        return True

    def _is_back(self, state: _State, now_ns: int) -> None:
        """A party that replied in order is well."""
        if state.standing is not Standing.WELL:
            state.standing = Standing.WELL
            self._report("HEALTH.BACK", state.party.name, (now_ns - state.asked_ns) / NS_PER_S)

    def _lose(self, state: _State, key: int, asked: int) -> None:
        """A party replied with a wrong key."""
        self.wrong_keys_count += 1
        self._report("HEALTH.WRONG_KEY", state.party.name, key, asked)
        if state.standing is not Standing.HUNG:
            self.hung_count += 1
        state.standing, state.is_lost = Standing.HUNG, True
        self._is_uneven = True

    def _do_enable(self, arguments: Any) -> Outcome:
        return self._set_enabled(arguments[0], is_enabled=True)

    def _do_disable(self, arguments: Any) -> Outcome:
        return self._set_enabled(arguments[0], is_enabled=False)

    def _set_enabled(self, party: str, *, is_enabled: bool) -> Outcome:
        state = self.parties.get(party)
        if state is None:
            return self._unknown(party)
        if is_enabled and not state.is_enabled:
            self.restarted(party)
        state.is_enabled = is_enabled
        return OK

    def _do_restart(self, arguments: Any) -> Outcome:
        (party,) = arguments
        if party not in self.parties:
            return self._unknown(party)
        if not self.can_restart(party):
            able = ", ".join(name for name in self.parties if self.can_restart(name)) or "none"
            return Outcome(CommandCode.EXECUTION_ERROR, f"{party} restarts only with the node; by itself: {able}")
        self.restart(party)
        return OK

    def _unknown(self, party: str) -> Outcome:
        return Outcome(CommandCode.EXECUTION_ERROR, f"party {party!r}: expected one of {', '.join(self.parties)}")
