"""Settings, results and counters of the LTP engine (RFC 5326)."""

from dataclasses import dataclass
from typing import Final

from flightsw.wire.segments import CancelReason

CLIENT_SERVICE_BUNDLE: Final = 1
"""LTP client service of the bundle protocol. Source: SANA registry "LTP Client Service Identifiers"."""


@dataclass(frozen=True, slots=True)
class LtpConfig:
    """Limits of one span. Those of both ends should agree."""

    margin_ns: int = 500_000_000
    """Added to twice the light time before something is repeated [ns]: segments ahead on both sides and a busy host."""
    retransmissions_max: int = 8
    """Repetitions of one checkpoint, report or cancellation; at 30 % loss each way 1 in 600 sessions gives up."""
    cycles_max: int = 64
    """Rounds of report and retransmission in a session; each halves what is missing even at 50 % loss."""
    exports_max: int = 48
    """Red blocks that are under way at once: 100 Mbit/s with 16 kB blocks stay full at 30 ms of light time."""
    imports_max: int = 64
    """Blocks that are half received at once; above it the one that was silent for longest is given up."""
    block_bytes_max: int = 1_048_576
    """Largest block that is reassembled [bytes]: 64 chunks; bounds what a peer can make us hold."""
    pieces_max: int = 8192
    """Separate pieces of a half received block: every other segment of 64 bytes of the largest one. Pieces of a byte
    each would take 40 times the memory of the block."""
    import_idle_ns: int = 600_000_000_000
    """A half received block is given up after this silence in contact [ns]: above all repetitions of a sender."""
    control_max: int = 1024
    """Reports, acknowledgements and cancellations that wait to be sent; more are dropped, and the peer asks again.
    Eight for each of over a hundred blocks."""
    closed_sessions_max: int = 1024
    """Finished sessions whose late segments are known as such: a minute of a busy link."""
    closed_idle_ns: int = 86_400_000_000_000
    """A finished session is forgotten after this time in contact [ns]: no sender asks about a block for a day, and its
    number may come again."""
    backoff_max_ns: int = 10_000_000_000
    """Longest wait of contact time between two tries at a peer that does not answer [ns]: after an outage a pass of ten
    minutes loses a sixtieth of itself at most."""


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """A block has arrived whole, or one of the two parts of a block that has a red and a green part."""

    block: bytes
    """The bytes of the part; all of the block where it has one part only."""
    red: bool
    """The part's colour: the red part comes reliably, the green one with luck, and in either order."""
    session: tuple[int, int]
    first_ns: int
    """When the first segment of the block arrived, monotonic [ns]."""


@dataclass(frozen=True, slots=True)
class BlockSent:
    """A red block is acknowledged in full, or the last segment of a green one was handed over."""

    session: int


@dataclass(frozen=True, slots=True)
class BlockFailed:
    """A block that was sent did not arrive, or nobody says so."""

    session: int
    block: bytes
    reason: CancelReason
    """Whoever cancelled said so; a green block that the end of contact cut off is SYS_CNCLD."""
    by_peer: bool = False
    """The peer cancelled: it is there."""


LtpEvent = BlockReceived | BlockSent | BlockFailed


@dataclass(slots=True)
class LtpCounters:
    """What the LTP engine of a node did since boot, over all its spans."""

    segments_sent_count: int = 0
    segments_received_count: int = 0
    retransmissions_count: int = 0
    """Data segments, reports and cancellations that were sent again."""
    late_segments_count: int = 0
    """Segments of sessions that are over, or unknown."""
    blocks_sent_count: int = 0
    blocks_received_count: int = 0
    blocks_failed_count: int = 0
    control_dropped_count: int = 0
    """Reports, acknowledgements and cancellations that found the queue full."""
    imports_abandoned_count: int = 0
    """Half received blocks that were given up: silence, bounds or cancellation."""
