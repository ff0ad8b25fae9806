from flightsw.core.rates import Rate, RateGroups

PERIODS_NS = {Rate.FAST: 100, Rate.NORMAL: 1000, Rate.SLOW: 10_000}


class Cycles:
    """Rate groups and what ran in them."""

    def __init__(self, start_ns=0):
        self.ran, self.slips = [], []
        self.groups = RateGroups(PERIODS_NS, start_ns, lambda group, cycles: self.slips.append((group, cycles)))

    def join(self, rate, place, name, now_ns=0):
        self.groups.join(rate, place, lambda now_ns: self.ran.append((now_ns, name)), now_ns)

    def run(self, now_ns):
        self.groups.run(now_ns)
        ran, self.ran = self.ran, []
        return ran


def test_members_run_in_their_places_and_faster_groups_first():
    cycles = Cycles()
    cycles.join(Rate.SLOW, 2, "late")
    cycles.join(Rate.SLOW, 1, "early")
    cycles.join(Rate.FAST, 9, "fast")
    cycles.join(Rate.NORMAL, 0, "normal")
    assert [name for _, name in cycles.run(0)] == ["fast", "normal", "early", "late"]


def test_each_group_runs_at_its_period():
    cycles = Cycles()
    for rate in Rate:
        cycles.join(rate, 0, rate.value)
    ran = [name for now_ns in range(0, 10_000, 50) for _, name in cycles.run(now_ns)]
    assert [ran.count(rate.value) for rate in Rate] == [100, 10, 1]
    assert cycles.slips == []


def test_a_cycle_that_comes_late_does_not_move_the_next_one():
    cycles = Cycles()
    cycles.join(Rate.NORMAL, 0, "x")
    cycles.run(999)
    assert cycles.groups.next_deadline_ns() == 1000
    assert cycles.run(1999) == [(1999, "x")]
    assert cycles.groups.next_deadline_ns() == 2000
    assert cycles.slips == []


def test_cycles_that_were_missed_are_counted_and_not_made_up_for():
    cycles = Cycles()
    cycles.join(Rate.NORMAL, 0, "x")
    cycles.run(0)
    assert cycles.run(4500) == [(4500, "x")]
    assert cycles.slips == [("normal", 3)]
    assert cycles.groups.slipped_count == 3
    assert cycles.groups.next_deadline_ns() == 5000


def test_a_group_without_members_has_no_deadline_and_no_slips():
    cycles = Cycles()
    assert cycles.groups.next_deadline_ns() is None
    cycles.join(Rate.SLOW, 0, "x")
    assert cycles.groups.next_deadline_ns() == 0
    cycles.run(0)
    assert cycles.groups.next_deadline_ns() == 10_000
    cycles.groups.leave(Rate.SLOW, 0)
    assert cycles.groups.next_deadline_ns() is None
    cycles.run(95_000)
    cycles.join(Rate.SLOW, 0, "x", now_ns=95_000)
    assert cycles.groups.next_deadline_ns() == 100_000, "on the group's grid, not a period after it joined"
    assert cycles.slips == []


def test_nothing_runs_before_the_start():
    cycles = Cycles(start_ns=500)
    cycles.join(Rate.FAST, 0, "x")
    assert cycles.run(499) == []
    assert cycles.run(500) == [(500, "x")]


def test_a_member_may_leave_and_join_in_its_own_cycle():
    cycles = Cycles()

    def once(now_ns):
        cycles.groups.leave(Rate.FAST, 0)
        cycles.join(Rate.NORMAL, 0, "slower", now_ns)

    cycles.groups.join(Rate.FAST, 0, once, 0)
    cycles.run(0)
    assert cycles.run(1000) == [(1000, "slower")]
    assert cycles.groups.next_deadline_ns() == 2000
