"""MODE: the mode of the node, as commands and channels."""

from collections.abc import Callable, Mapping

from flightsw.component import OK, Handler, Outcome, Scalar
from flightsw.core.modes import Cause, ModeManager
from flightsw.ports import Sensors
from flightsw.wire.messages import CommandCode


class ModeControl:
    """Implements `flightsw.component.Component`.

    Args:
        modes: of the node.
        note: told of the cause of each change that a command brought.
    """

    name = "MODE"

    def __init__(self, modes: ModeManager, note: Callable[[Cause], None]) -> None:
        self._modes = modes
        self._note = note
        self.sensors: Sensors | None = None
        """The last reading, None before the first."""

    def handlers(self) -> Mapping[str, Handler]:
        """SAFE, NOMINAL."""
        return {
            "SAFE": lambda _: self._apply(Cause.SAFE_COMMANDED),
            "NOMINAL": lambda _: self._apply(Cause.NOMINAL_COMMANDED),
        }

    def channels(self) -> Mapping[str, Scalar]:
        """The mode, and the last reading of the sensors."""
        sensors = self.sensors
        if sensors is None:
            return {"mode": int(self._modes.mode)}
        return {
            "mode": int(self._modes.mode),
            "charge_j": round(sensors.charge_j, 1),
            "solar_w": round(sensors.solar_w, 2),
            "load_w": round(sensors.load_w, 2),
            "electronics_degc": round(sensors.electronics_degc, 2),
            "sunlight": round(sensors.sunlight, 3),
        }

    def _apply(self, cause: Cause) -> Outcome:
        if not self._modes.apply(cause):
            return Outcome(CommandCode.EXECUTION_ERROR, f"{cause.value} changes nothing in {self._modes.mode.name}")
        self._note(cause)
        return OK
