"""Pings from the ground: ask the echo service of a node and wait for the answer.

They go at the default priority: that needs no block of ours in the bundle, which some implementations would refuse.
"""

import asyncio

from flightsw.net.agent_values import Delivery
from flightsw.net.echo import ECHO_SERVICE, PING_SERVICE
from flightsw.net.endpoint import Endpoint
from flightsw.net.ping import PING_BYTES, PingReply, Pings
from flightsw.ports import Clock


class Pinger:
    """Pings of one endpoint; its owner hands over what comes for `PING_SERVICE`.

    Args:
        endpoint: sends them.
        clock: of the endpoint.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._pings = Pings()
        self._answers: dict[int, asyncio.Future[PingReply]] = {}

    async def ping(
        self, node: int, *, service: int = ECHO_SERVICE, size_bytes: int = PING_BYTES, wait_s: float = 10.0
    ) -> PingReply | None:
        """Ask a node for an echo; None when the answer has not come within the wait.

        Args:
            node: whom.
            service: its echo service.
            size_bytes: length of the payload.
            wait_s: how long to wait [s]; no longer lives the bundle.

        Raises:
            ConfigError: an argument is out of range.
        """
        sequence, payload = self._pings.make(node, size_bytes, self._clock.monotonic_ns())
        answer: asyncio.Future[PingReply] = asyncio.get_running_loop().create_future()
        self._answers[sequence] = answer
        try:
            self._endpoint.send(
                node,
                service,
                payload,
                lifetime_ms=max(1, int(wait_s * 1000)),
                reliable=True,
                source_service=PING_SERVICE,
            )
            async with asyncio.timeout(wait_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._pings.forget(sequence)
            del self._answers[sequence]

    def receive(self, delivery: Delivery) -> None:
        """Take what came for `PING_SERVICE`; what answers no ping of ours is nothing."""
        reply = self._pings.receive(delivery, self._clock.monotonic_ns())
        if reply is not None and not self._answers[reply.sequence].done():
            self._answers[reply.sequence].set_result(reply)
