"""The asyncio shell around a bundle agent: one wire, one clock, one timer. Node and ground use the same.

All that happens is a call from the wire, a call from a service or the timer; each lets the agent do what is due, hands
its frames to the wire and its deliveries to the service at once. No task runs: a message costs no more callbacks than
its own arrival and at most one timer.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from flightsw.errors import LinkError
from flightsw.net.agent import BundleAgent, BundleId, Delivery
from flightsw.net.agent_values import PRIORITY_DEFAULT
from flightsw.net.security import Refusal
from flightsw.ports import Clock, Frame, Link

LATE_NS: Final = 5 * 1_000_000_000
"""What the agent has to do may be so late [ns]; more, and its timer is lost."""


class Endpoint:
    """A bundle agent on a lab wire.

    Args:
        clock: monotonic and mission time.
        link: the wire; the endpoint becomes its receiver, and closes it.
        agent: the agent; nobody else may call it.
        on_delivery: called with each bundle for a service of this node; it may call `send`.
        on_refusal: called with bundles that security refused, a few a minute; it may call `send`.
    """

    def __init__(
        self,
        clock: Clock,
        link: Link,
        agent: BundleAgent,
        on_delivery: Callable[[Delivery], None],
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    ) -> None:
        self.agent = agent
        self.frames_lost_count = 0
        """Frames that the wire did not take; for the protocol they are lost like any other."""
        self._clock = clock
        self._link = link
        self._on_delivery = on_delivery
        self._on_refusal = on_refusal
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._is_serving = False
        self._is_more = False
        """Whether the agent was told something while it was being served."""
        self._is_closed = False
        link.set_receiver(self._on_frame)

    def send(
        self,
        destination_node: int,
        service: int,
        payload: bytes,
        *,
        lifetime_ms: int,
        priority: int = PRIORITY_DEFAULT,
        reliable: bool = True,
        source_service: int = 0,
        confidential: bool = False,
        padding_bytes: int = 0,
        watch: int | None = None,
    ) -> BundleId:
        """Send a payload to a service of a node; what the transmitters take now is on the wire when this returns.

        Needs a running event loop. Arguments as of `BundleAgent.send`.

        Raises:
            ConfigError: as of `BundleAgent.send`.
        """
        now_ns = self._clock.monotonic_ns()
        bundle_id = self.agent.send(
            destination_node,
            service,
            payload,
            now_ns=now_ns,
            utc_ns=self._clock.utc_ns(),
            lifetime_ms=lifetime_ms,
            priority=priority,
            reliable=reliable,
            source_service=source_service,
            confidential=confidential,
            padding_bytes=padding_bytes,
            watch=watch,
        )
        self.flush(now_ns)
        return bundle_id

    def flush(self, now_ns: int | None = None) -> None:
        """Do what is due now. Call it once to start: contacts that are open then begin. Needs a running event loop.

        Args:
            now_ns: monotonic time [ns], where the caller has looked at the clock.
        """
        if self._is_serving or self._is_closed:
            # Called from a delivery, or by a wire that answers within `send`: the loop below goes round once more.
            self._is_more = True
            return
        self._is_serving = self._is_more = True
        try:
            agent, now_ns = self.agent, self._clock.monotonic_ns() if now_ns is None else now_ns
            while self._is_more:
                self._is_more = False
                for interface, frame in agent.pump(now_ns):
                    try:
                        self._link.send(interface, frame)
                    except LinkError:
                        self.frames_lost_count += 1
                for delivery in agent.take_deliveries():
                    self._on_delivery(delivery)
                while agent.refusals:
                    self._on_refusal(agent.refusals.pop(0))
                if self._is_more:
                    now_ns = self._clock.monotonic_ns()
        finally:
            self._is_serving = False
            self._arm()

    def is_prompt(self, now_ns: int) -> bool:
        """Whether the wire is open, and nothing that the agent had to do has waited for `LATE_NS`."""
        deadline_ns = self.agent.next_deadline_ns()
        return not self._is_closed and (deadline_ns is None or now_ns - deadline_ns < LATE_NS)

    async def close(self) -> None:
        """Stop the timer and close the wire. What waits is lost, as at a power cut."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._link.close()

    def _on_frame(self, interface: int, frame: Frame) -> None:
        if not self._is_closed:
            now_ns = self._clock.monotonic_ns()
            self.agent.receive_frame(interface, frame, now_ns)
            self.flush(now_ns)

    def _arm(self) -> None:
        """See to it that the timer fires by the agent's next deadline; a timer that is too early may stay."""
        deadline_ns = self.agent.next_deadline_ns()
        if deadline_ns is None or self._is_closed or (self._timer is not None and self._timer_ns <= deadline_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole microseconds, rounded up: a timer that fires a little early would have to be set again.
        delay_us = max(0, -((self._clock.monotonic_ns() - deadline_ns) // 1000))
        self._timer = asyncio.get_running_loop().call_later(delay_us / 1e6, self._on_timer)
        self._timer_ns = deadline_ns

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()
