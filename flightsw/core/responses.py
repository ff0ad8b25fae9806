"""Responses: what a limit rule does when it fires, action by action.

An action that is refused is reported, and those after it are run all the same. A command that resets the node ends the
response, so it stands last.
"""

from collections.abc import Callable
from typing import Final

from flightsw.component import Audit, Execute, Report
from flightsw.dictionary.limit_rules import Action, Rule
from flightsw.wire.messages import CommandCode

SEQUENCE_START: Final = "SEQUENCES.START"


class Responses:
    """Runs the actions of rules.

    Args:
        request_safe: called with a rule's name; brings the node to SAFE, and says whether it is there.
        execute: runs a command of an on-board origin.
        report: takes events.
        audit: takes records of autonomous decisions.
    """

    def __init__(self, request_safe: Callable[[str], bool], execute: Execute, report: Report, audit: Audit) -> None:
        self._request_safe = request_safe
        self._execute = execute
        self._report = report
        self._audit = audit

    def run(self, rule: Rule, reason: str) -> None:
        """Run all actions of a rule that fired."""
        self._audit("response", {"rule": rule.name, "reason": reason, "actions": [one.text for one in rule.actions]})
        for action in rule.actions:
            refusal = self._refusal(rule, action)
            if refusal is not None:
                self._report("LIMITS.RESPONSE_FAILED", rule.name, action.text, refusal)

    def _refusal(self, rule: Rule, action: Action) -> str | None:
        """Run one action; why it was not done, or None."""
        if action.mode:
            return None if self._request_safe(rule.name) else "the present mode does not lead there"
        if action.sequence:
            opcode, arguments = SEQUENCE_START, (action.sequence,)
        else:
            opcode, arguments = action.command, action.arguments
        outcome = self._execute(opcode, arguments, f"rule {rule.name}")
        return None if outcome.code is CommandCode.OK else f"{outcome.code.name}: {outcome.detail}"
