"""Limits, results and counters of the bundle agent."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flightsw.net.ltp_values import LtpConfig, LtpCounters
from flightsw.wire.admin import StatusReport

PRIORITIES_COUNT: Final = 8
"""Priorities are 0 (urgent) to 7."""

PRIORITY_DEFAULT: Final = 4
"""Of bundles that do not say: the middle."""


class BundleId(NamedTuple):
    """What makes a bundle known everywhere: source and creation timestamp. Source: RFC 9171 §4.2.7."""

    source_node: int
    source_service: int
    created_ms: int
    """DTN time [ms since 2000-01-01T00:00:00Z]; mission time, so no timer uses it."""
    sequence: int


class Delivery(NamedTuple):
    """A bundle that has reached a service of this node."""

    service: int
    source_node: int
    payload: bytes
    age_ms: int
    """Time since the bundle was made, as counted along its way [ms]."""
    lifetime_ms: int
    authenticated: bool = False
    """Its source has signed it, or is this node itself."""
    confidential: bool = False
    """It came encrypted."""
    source_service: int = 0
    """Service of the source, where an answer would go."""
    record: StatusReport | None = None
    """What the payload is, where it is an administrative record; no service of ours is meant then."""


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Bounds of a bundle agent."""

    ltp: LtpConfig = field(default_factory=LtpConfig)
    limbo_bundles_max: int = 1024
    """Bundles without a route; 16 MB of chunks."""
    seen_bundles_max: int = 8192
    """Bundles that were delivered here and are known when they come again; a busy pass of the ground."""
    suspect_ns: int = 120_000_000_000
    """A neighbour that did not answer is avoided for this long, where there is another way [ns]: longer than an outage
    by fading or a new acquisition, shorter than a pass."""
    window_ns: int = 20_000_000
    """Frames are handed to the wire at most this far ahead of the transmitter [ns], or one segment ahead when that is
    longer: few timers, and little is lost when contact ends early."""
    failures_max: int = 16
    """A bundle is dropped when neighbours have refused it this often; it would be in the way of others until it is too
    old. Silence is no refusal: through an outage a bundle is tried again until its lifetime ends."""
    hops_max: int = 64
    """Hop limit of bundles made here: twice around a ring of 32, RFC 9171 §4.4.3."""
    trail_bundles_max: int = 4096
    """Bundles of others whose way on is remembered, to tell one that comes back: a full queue of one neighbour."""
    sweep_ns: int = 1_000_000_000
    """Least time between two searches for expired bundles [ns]; what is about to be sent is checked exactly."""
    status_reports: bool = False
    """Whether this node makes the status reports that bundles ask for. RFC 9171 §8: off by default."""


@dataclass(slots=True)
class InterfaceCounters:
    """What an interface did since boot."""

    frames_sent_count: int = 0
    frames_accepted_count: int = 0
    frames_corrected_count: int = 0
    """Frames that arrived with errors, all of which the coding corrected."""
    frames_rejected_count: int = 0
    """Noise: framing, coding or CRC did not hold."""
    segments_rejected_count: int = 0
    """Frames that held, with something that is no LTP segment of a known engine."""


@dataclass(slots=True)
class AgentCounters:
    """What the agent did since boot."""

    bundles_sourced_count: int = 0
    bundles_forwarded_count: int = 0
    bundles_delivered_count: int = 0
    bundles_duplicate_count: int = 0
    bundles_expired_count: int = 0
    bundles_dropped_count: int = 0
    """A queue was full, the hop limit or the failure limit was reached."""
    bundles_rejected_count: int = 0
    """Blocks that are no bundle, or a bundle whose CRC does not hold."""
    bundles_rerouted_count: int = 0
    bundles_returned_count: int = 0
    """Bundles that came back to this node on their way, and then avoid the way that they went."""
    frames_stray_count: int = 0
    """Frames that arrived on an interface that is not configured."""
    security_refused: dict[str, int] = field(default_factory=dict)
    """Bundles for this node that its security refused, by reason (`flightsw.net.security.Reason`)."""
    suspicions_count: int = 0
    """Times that a neighbour did not answer to the limit."""
    bundles_reassembled_count: int = 0
    fragments_dropped_count: int = 0
    """Fragments that did not become a bundle in time, or within the memory for them."""
    echoes_answered_count: int = 0
    echoes_refused_count: int = 0
    """Bundles for the echo service that got no answer: too many, too long, encrypted, or from nobody."""
    status_reports_sent_count: int = 0
    status_reports_suppressed_count: int = 0
    """Reports that were asked for beyond the rate."""
    status_reports_received_count: int = 0
    ltp: LtpCounters = field(default_factory=LtpCounters)
    interfaces: dict[int, InterfaceCounters] = field(default_factory=dict)

    def frames_rejected_count(self) -> int:
        """Frames that were rejected on all interfaces."""
        count = 0
        for one in self.interfaces.values():  # a beacon asks, so it is quick
            count += one.frames_rejected_count + one.segments_rejected_count
        return count
