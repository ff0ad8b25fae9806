"""The capability report of a board, as `HARDWARE.REPORT` sends it: JSON, to be read without this software too."""

from typing import Annotated, Any, Final

import msgspec

from flightsw.errors import MessageError
from flightsw.ports import Capability, HardwareReading, Support

LINE_CHARACTERS_MAX: Final = 512
"""Longest text of a report [characters]: a detail that lists what was tried and why it was not taken."""
Line = Annotated[str, msgspec.Meta(max_length=LINE_CHARACTERS_MAX)]


class CapabilityRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the report."""

    name: Line
    support: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(Support.__members__)})$")]
    detail: Line


class HardwareReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the board can do, and what its sensors say."""

    capabilities: tuple[CapabilityRow, ...]
    power_modes: tuple[Line, ...]
    reading: HardwareReading


def encode_report(
    capabilities: tuple[Capability, ...], power_modes: tuple[str, ...], reading: HardwareReading
) -> bytes:
    """The report as JSON. A board's reading may have more fields; those of the port travel."""
    rows = tuple(CapabilityRow(one.name, one.support.name, one.detail) for one in capabilities)
    fields = {name: getattr(reading, name) for name in HardwareReading.__dataclass_fields__}
    report = HardwareReport(rows, power_modes, HardwareReading(**fields))
    return msgspec.json.encode(_clean(msgspec.to_builtins(report)))


def decode_report(data: bytes) -> HardwareReport:
    """What `HARDWARE.REPORT` sent.

    Raises:
        MessageError: it is no report.
    """
    try:
        return msgspec.json.decode(data, type=HardwareReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"report of the hardware: {error}") from None


def _clean(value: Any) -> Any:
    """The same with texts that UTF-8 can carry and that are no longer than a line: boards have strange names."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()[:LINE_CHARACTERS_MAX]
        case dict():
            return {_clean(key): _clean(one) for key, one in value.items()}
        case list() | tuple():
            return [_clean(one) for one in value]
    return value
