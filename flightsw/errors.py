"""The error tree: errors are named by who is to blame.

```text
FlatrackError
├── WireError            the peer or noise on the link
│   ├── FrameError       framing or its CRC
│   ├── CodingError      error-correcting code
│   ├── SegmentError     LTP segment
│   ├── BundleError      BPv7 bundle
│   └── MessageError     CBOR message
├── LinkError            the bearer
│   ├── LinkClosed       closed by us
│   ├── LinkBroken       closed by them
│   ├── LinkTimeout
│   └── ControlError     another program of this machine refused a call
├── StorageError         the disk: full, torn or rotten
├── BoardError           the hardware
│   ├── BoardNotFound
│   └── SensorError
├── ConfigError          the user's file, argument or request
└── SimulationError      the bench (raised in hil only)
    ├── Deadlock         every task waits and no timer is armed
    ├── Escape           flight or ground code reached for wall time, threads or sockets
    ├── ReplayDiverged   a replay is not the run that it repeats
    └── InvariantBroken  the run broke a rule of the house
```

A refused command is a value with a reason, not an exception. `AssertionError` marks our own mistakes and is never
caught but by the watchdog.
"""


class FlatrackError(Exception):
    """Base of all errors that flatrack raises on purpose."""


class WireError(FlatrackError):
    """Bytes that do not follow the protocol: the peer's fault, or noise."""


class FrameError(WireError):
    """A frame whose framing or CRC does not hold."""


class CodingError(WireError):
    """A code word that cannot be corrected."""


class SegmentError(WireError):
    """An LTP segment that does not follow RFC 5326."""


class BundleError(WireError):
    """A bundle that does not follow RFC 9171, or whose CRC does not hold."""


class MessageError(WireError):
    """A CBOR message with a wrong shape, type or range."""


class LinkError(FlatrackError):
    """The bearer cannot carry frames."""


class LinkClosed(LinkError):
    """We closed the link."""


class LinkBroken(LinkError):
    """The other side, or the cable, closed the link."""


class LinkTimeout(LinkError):
    """The link did not answer in time."""


class ControlError(LinkError):
    """The other end of a control socket refused a call; says why."""


class StorageError(FlatrackError):
    """Durable state cannot be read or written."""


class BoardError(FlatrackError):
    """The hardware does not do what was asked."""


class BoardNotFound(BoardError):
    """The named board is not there."""


class SensorError(BoardError):
    """A sensor cannot be read."""


class ConfigError(FlatrackError):
    """A file, argument or request of the user is wrong. Names where, which field, the value and what was expected."""


class SimulationError(FlatrackError):
    """The bench found the run unsound."""


class Deadlock(SimulationError):
    """Every task waits and no timer is armed."""


class Escape(SimulationError):
    """Code under virtual time reached for wall time, a thread, a socket or unseeded chance."""


class ReplayDiverged(SimulationError):
    """A replay differs from the run that it repeats."""


class InvariantBroken(SimulationError):
    """A run broke an invariant."""
