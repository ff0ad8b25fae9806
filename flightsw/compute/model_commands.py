"""MODELS: what stands against struck weights and struck computing, as commands and channels."""

from collections.abc import Mapping

from flightsw.component import Handler, Outcome, Scalar
from flightsw.compute.executor import Executor
from flightsw.compute.models import Models, Scrub
from flightsw.compute.scrubbing import Scrubber
from flightsw.wire.messages import CommandCode


class ModelControl:
    """Implements `flightsw.component.Component`.

    Args:
        models: in memory.
        scrubber: checks and mends them.
        executor: runs steps on them.
    """

    name = "MODELS"

    def __init__(self, models: Models, scrubber: Scrubber, executor: Executor) -> None:
        self._models = models
        self._scrubber = scrubber
        self._executor = executor

    def handlers(self) -> Mapping[str, Handler]:
        """SCRUB."""
        return {"SCRUB": lambda _: self._scrub()}

    def channels(self) -> Mapping[str, Scalar]:
        """Models in memory, and what was found and voted since boot."""
        return {
            "loaded": len(self._models.digests()),
            "out_of_range": self._models.out_of_range_count,
            "mended": self._models.mended_count,
            "disagreed": self._executor.disagreed_count,
            "outvoted": self._executor.outvoted_count,
            "products_corrected": self._executor.checks.corrected_count,
            "products_repeated": self._executor.checks.repeated_count,
            "products_refused": self._executor.checks.refused_count,
        }

    def _scrub(self) -> Outcome:
        found = self._scrubber.scrub_models()
        mended = sum(one is not Scrub.HOLDS for one in found)
        return Outcome(CommandCode.OK, f"{mended} of {len(found)} models did not hold")
