"""LIMITS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from flightsw.dictionary.model import ParameterKey

COMMAND_LOSS_S: Final = ParameterKey[int]("LIMITS.command_loss_s")
"""Without a valid command for this long the node goes SAFE: two days, more than any planned pause of operations."""
CONTACT_LOSS_S: Final = ParameterKey[int]("LIMITS.contact_loss_s")
"""Without a bundle from the ground for this long the node restarts, and its radios with it: a day has many passes."""


class Load(NamedTuple):
    """LIMITS.LOAD: Take a rule file in place of the present one. A file that does not hold is refused, and the
    present one stands.
    """

    rules: bytes
    """TOML, as `flatrack rules check` takes it."""


class Arm(NamedTuple):
    """LIMITS.ARM: Make a rule ACTIVE that went PASSIVE when it fired."""

    rule: str
    """Name of the rule; * for all that are PASSIVE."""


class Disable(NamedTuple):
    """LIMITS.DISABLE: Evaluate a rule no more. Protection is switched off, so it must be armed first."""

    rule: str
    """Name of the rule."""


class Enable(NamedTuple):
    """LIMITS.ENABLE: Make a DISABLED rule ACTIVE."""

    rule: str
    """Name of the rule; * for all that are DISABLED."""


class Status(NamedTuple):
    """LIMITS.STATUS: State, result and counts of a rule, and the results of its watchpoints, in the answer."""

    rule: str
    """Name of the rule."""


def fired(report: Callable[..., None], /, rule: str, reason: str) -> None:
    """LIMITS.FIRED: A rule with a response fired; its response is run now, and it is PASSIVE from here on."""
    report("LIMITS.FIRED", rule, reason)


def noticed(report: Callable[..., None], /, rule: str, reason: str) -> None:
    """LIMITS.NOTICED: A rule without a response fired; it is PASSIVE from here on."""
    report("LIMITS.NOTICED", rule, reason)


def inhibited(report: Callable[..., None], /, rule: str, reason: str) -> None:
    """LIMITS.INHIBITED: A rule would have fired, but the mode holds responses back. It fires when the mode allows it
    and it still fails.
    """
    report("LIMITS.INHIBITED", rule, reason)


def response_failed(report: Callable[..., None], /, rule: str, action: str, reason: str) -> None:
    """LIMITS.RESPONSE_FAILED: An action of a response was refused or failed; the actions after it were run all the
    same.
    """
    report("LIMITS.RESPONSE_FAILED", rule, action, reason)


def result(
    report: Callable[..., None],
    /,
    rule: str,
    before: Literal["NONE", "PASS", "FAIL", "STALE", "ERROR"],
    after: Literal["NONE", "PASS", "FAIL", "STALE", "ERROR"],
) -> None:
    """LIMITS.RESULT: A rule came from one result to another. Of each rule, the first few of each kind since it was
    armed are told.
    """
    report("LIMITS.RESULT", rule, before, after)


def state(report: Callable[..., None], /, rule: str, state: Literal["ACTIVE", "PASSIVE", "DISABLED"]) -> None:
    """LIMITS.STATE: A command brought a rule to another state."""
    report("LIMITS.STATE", rule, state)


def loaded(report: Callable[..., None], /, name: str, rules: int, digest: bytes) -> None:
    """LIMITS.LOADED: Another rule file is in force. Its rules start in the states that it says."""
    report("LIMITS.LOADED", name, rules, digest)


def rules_lost(report: Callable[..., None], /, reason: str) -> None:
    """LIMITS.RULES_LOST: The loaded rule file did not hold at boot, or does not fit this software."""
    report("LIMITS.RULES_LOST", reason)


def states_lost(report: Callable[..., None], /, reason: str) -> None:
    """LIMITS.STATES_LOST: The states of the rules did not hold at boot."""
    report("LIMITS.STATES_LOST", reason)


def unsaved(report: Callable[..., None], /, reason: str) -> None:
    """LIMITS.UNSAVED: The state of a rule was not written; a reset would go back to the one before."""
    report("LIMITS.UNSAVED", reason)
