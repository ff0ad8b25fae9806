"""Where bundles that go on have been sent, so that one that comes back goes another way.

Nodes know of dead links one by one: around a link that only its ends suspect, plain earliest-arrival routing would pass
a bundle round and round until its hops are used up. A bundle that comes back here avoids the neighbours that it was
given to before, for as long as a suspicion lasts; when no other way is left it waits.
"""

from collections import OrderedDict

from flightsw.net.agent_values import BundleId
from flightsw.wire.bundles import Bundle


class Trails:
    """Remembers the neighbours that took each bundle.

    Args:
        bundles_max: how many bundles are remembered; the one that was noted first is forgotten first.
        lapse_ns: how long a neighbour is avoided [ns].
    """

    def __init__(self, bundles_max: int, lapse_ns: int) -> None:
        self._bundles_max = bundles_max
        self._lapse_ns = lapse_ns
        self._taken: OrderedDict[BundleId, tuple[tuple[int, int], ...]] = OrderedDict()
        """Bundle -> (neighbour, when it is forgotten [ns]), ..."""

    def note(self, bundle: Bundle, neighbour: int, now_ns: int) -> None:
        """A neighbour has the bundle."""
        key = _key(bundle)
        others = tuple(one for one in self._taken.get(key, ()) if one[0] != neighbour and one[1] > now_ns)
        self._taken[key] = (*others, (neighbour, now_ns + self._lapse_ns))
        if len(self._taken) > self._bundles_max:
            self._taken.popitem(last=False)

    def avoided(self, bundle: Bundle, now_ns: int) -> tuple[int, ...]:
        """Neighbours that had the bundle before, rising; empty when it was never here."""
        taken = self._taken.get(_key(bundle))
        return () if taken is None else tuple(sorted(neighbour for neighbour, until_ns in taken if until_ns > now_ns))


def _key(bundle: Bundle) -> BundleId:
    return BundleId(bundle.source.node, bundle.source.service, *bundle.creation)
