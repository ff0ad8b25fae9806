"""What a lab wire carries: a coded frame, whatever holds its bits."""

from typing import Protocol


class Frame(Protocol):
    """A coded frame: `bytes`, or what makes its bytes when somebody looks at them (`flightsw.wire.frames`)."""

    def __len__(self) -> int:
        """Bytes that it takes on the link."""
        ...

    def __bytes__(self) -> bytes:
        """The coded bytes."""
        ...
