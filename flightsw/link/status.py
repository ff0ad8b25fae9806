"""How a bearer is: its state and its counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class LinkStatus:
    """State and counts of one end of a bearer, since it was opened."""

    is_connected: bool = False
    """Whether frames can move now. MQTT: to the broker, which says nothing of the peer."""
    connects_count: int = 0
    """Times that the device or broker was reached; all but the first are reconnections."""
    sent_count: int = 0
    """Frames handed to the operating system whole, or to the broker (QoS 1: acknowledged by it)."""
    received_count: int = 0
    """Frames handed to the receiver."""
    dropped_out_count: int = 0
    """Frames that were sent while the bearer was down, or gave way in the full queue, or were cut off by a loss."""
    dropped_in_count: int = 0
    """Frames that arrived with nobody listening, or gave way in the full queue."""
    bad_records_count: int = 0
    """Records that arrived damaged."""
    error: str = ""
    """Why it was down last; never contains a password."""
