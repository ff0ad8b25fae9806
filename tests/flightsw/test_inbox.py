"""The memory of what was delivered is bounded, and forgets the oldest first."""

from flightsw.net.agent_values import AgentCounters
from flightsw.net.inbox import Inbox
from flightsw.wire.bundles import Bundle
from flightsw.wire.eids import DTN_NONE, Eid


def bundle(sequence: int) -> Bundle:
    return Bundle(Eid(1, 2), Eid(3, 0), DTN_NONE, (1000, sequence), 60_000, b"payload")


def test_the_oldest_delivery_is_forgotten_when_there_is_no_room_and_the_others_stay_known():
    counters = AgentCounters()
    inbox = Inbox(3, counters)
    assert all(inbox.judged(bundle(sequence), 0, 0) is not None for sequence in (1, 2, 3, 4))
    assert all(inbox.judged(bundle(sequence), 0, 0) is None for sequence in (2, 3, 4))
    assert counters.bundles_duplicate_count == 3
    assert not inbox.knows(bundle(1))
    assert inbox.judged(bundle(1), 0, 0) is not None
    assert inbox.knows(bundle(1))
