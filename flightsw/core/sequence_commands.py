"""SEQUENCES: the commands and the telemetry of the sequences on board."""

from collections.abc import Mapping
from typing import Any

from flightsw.component import Dump, Handler, Outcome, Scalar
from flightsw.core.sequences import DETAIL_CHARACTERS_MAX, Sequences, unknown
from flightsw.dictionary.sequence_state import encode_dump
from flightsw.wire.messages import CommandCode


class SequenceControl:
    """Implements `flightsw.component.Component`.

    Args:
        sequences: of the node.
        dump: sends a data product to the ground.
    """

    name = "SEQUENCES"

    def __init__(self, sequences: Sequences, dump: Dump) -> None:
        self._sequences = sequences
        self._dump = dump

    def handlers(self) -> Mapping[str, Handler]:
        """LOAD, START, STOP, ENABLE, DISABLE, UNLOAD, LIST, DUMP."""
        sequences = self._sequences
        return {
            "LOAD": lambda arguments: sequences.load(arguments[0]),
            "START": lambda arguments: sequences.start(arguments[0]),
            "STOP": lambda arguments: sequences.stop(arguments[0]),
            "ENABLE": lambda arguments: sequences.enable(arguments[0], True),
            "DISABLE": lambda arguments: sequences.enable(arguments[0], False),
            "UNLOAD": lambda arguments: sequences.unload(arguments[0]),
            "LIST": self._do_list,
            "DUMP": self._do_dump,
        }

    def channels(self) -> Mapping[str, Scalar]:
        """What is loaded and what runs, and how entries ended since boot."""
        sequences = self._sequences
        return {
            "loaded": len(sequences.loaded),
            "running": sequences.running_count,
            "executed": sequences.executed_count,
            "failed": sequences.failed_count,
            "skipped": sequences.skipped_count,
            "repaired": sequences.repaired_count,
            "held": sum(loaded.is_held for loaded in sequences.loaded.values()),
        }

    def _do_list(self, _: tuple[Any, ...]) -> Outcome:
        words = []
        for name, loaded in sorted(self._sequences.loaded.items()):
            state = loaded.state
            words.append(f"{name} {loaded.image.header.kind} {state.word} {state.next_entry - 1}/{len(state.statuses)}")
        count, text = len(words), "; ".join(words) or "none"
        while len(text) > DETAIL_CHARACTERS_MAX:
            words.pop()
            text = f"{'; '.join(words)}; and {count - len(words)} more"
        return Outcome(CommandCode.OK, text)

    def _do_dump(self, arguments: tuple[Any, ...]) -> Outcome:
        loaded = self._sequences.loaded.get(arguments[0])
        if loaded is None:
            return unknown(arguments[0])
        number = self._dump(self.name, encode_dump(loaded.state, loaded.image.image))
        return Outcome(CommandCode.OK, f"data product {number}")
