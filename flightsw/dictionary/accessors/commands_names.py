"""COMMANDS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

ARM_WINDOW_S: Final = ParameterKey[int]("COMMANDS.arm_window_s")
"""How long a hazardous command stays armed, on monotonic time."""


class Arm(NamedTuple):
    """COMMANDS.ARM: Open the window in which one hazardous command may be sent. It closes by itself, by the command,
    and at a reset.
    """

    opcode: str
    """The command that is to come, COMPONENT.NAME."""


def armed(report: Callable[..., None], /, opcode: str, window_s: int) -> None:
    """COMMANDS.ARMED: A hazardous command may be sent now."""
    report("COMMANDS.ARMED", opcode, window_s)


def log_lost(report: Callable[..., None], /, count: int) -> None:
    """COMMANDS.LOG_LOST: Records of executed commands did not hold at boot: one of them, sent again, would be
    executed again.
    """
    report("COMMANDS.LOG_LOST", count)
