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
    for sequence in (1, 2, 3, 4):
        inbox.deliver(bundle(sequence), 0)
    for sequence in (2, 3, 4):
        inbox.deliver(bundle(sequence), 0)
    assert (counters.bundles_delivered_count, counters.bundles_duplicate_count) == (4, 3)
    inbox.deliver(bundle(1), 0)
    assert (counters.bundles_delivered_count, counters.bundles_duplicate_count) == (5, 3)
    assert len(inbox.take()) == 5
