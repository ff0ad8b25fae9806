"""Takes the samples that limit rules watch, once in a cycle."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from flightsw.component import Component, Scalar
from flightsw.core.mode_commands import ModeControl
from flightsw.dictionary.limit_rules import RuleSet

LIMITS: Final = "LIMITS"


class Samples:
    """What is watched on one node.

    Args:
        mode_control: has the sensors.
        components: whose channels are asked for what has no reader.
        readers: key of a channel -> what reads that one alone; quicker than asking for all of a component.
    """

    def __init__(
        self, mode_control: ModeControl, components: Sequence[Component], readers: Mapping[str, Callable[[], Scalar]]
    ) -> None:
        self._mode_control = mode_control
        self._components = {component.name: component for component in components}
        self._readers = readers
        self._rules: RuleSet | None = None
        self._single: list[tuple[str, Callable[[], Scalar]]] = []
        self._others: list[tuple[Component, list[tuple[str, str]]]] = []

    def take(self, rules: RuleSet) -> dict[str, Scalar]:
        """Key -> value of what a set watches, as it is now; what cannot be read is not there."""
        if rules is not self._rules:
            self._arrange(rules)
        samples = self._mode_control.samples()
        for key, read in self._single:
            samples[key] = read()
        for component, wanted in self._others:
            values = component.channels()
            for channel, key in wanted:
                if channel in values:
                    samples[key] = values[channel]
        return samples

    def _arrange(self, rules: RuleSet) -> None:
        self._rules = rules
        self._single, self._others = [], []
        for name, channels in rules.wanted:
            if name in (self._mode_control.name, LIMITS):
                continue  # the one is there already, the other adds its own
            self._single += [(key, self._readers[key]) for _, key in channels if key in self._readers]
            rest = [(channel, key) for channel, key in channels if key not in self._readers]
            if rest and name in self._components:
                self._others.append((self._components[name], rest))
