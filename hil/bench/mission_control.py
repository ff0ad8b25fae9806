"""The ground segment inside the bench's own loop."""

from collections.abc import Callable

from flightsw.net.agent import BundleAgent
from ground.ledger import JobRequest
from ground.segment import GroundSegment
from hil.bench.accounts import Accounts


class LocalGround:
    """Implements `hil.bench.member.Ground`.

    Args:
        segment: the ground segment; it runs from now on.
    """

    is_exact = True

    def __init__(self, segment: GroundSegment) -> None:
        self.segment = segment

    @property
    def agent(self) -> BundleAgent | None:
        """The bundle agent."""
        return self.segment.agent

    def put_object(self, data: bytes) -> None:
        """Put an object into the ground's store."""
        self.segment.store.put(data)

    def submit(self, request: JobRequest, accepted: Callable[[int], None]) -> None:
        """Hand over a job."""
        accepted(self.segment.submit(request))

    def accounts(self) -> Accounts:
        """The books now."""
        return Accounts.of_agent(self.segment.agent)

    @property
    def uplinked_bytes(self) -> int:
        """Bytes of models and tiles that reached satellites."""
        return self.segment.cluster.counts.uplinked_bytes

    async def close(self) -> None:
        """End it; its files are written."""
        await self.segment.close()
