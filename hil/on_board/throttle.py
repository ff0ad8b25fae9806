"""Slows a board down: its clock where it has a governor, else the share of processor time that its node gets."""

from pathlib import Path

from flightsw.errors import BoardError
from hil.on_board.service import NodeService


class Throttle:
    """One throttling.

    Args:
        root: of the board.
        service: the node's.
    """

    def __init__(self, root: Path, service: NodeService) -> None:
        self._policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
        self._service = service
        self._before: list[tuple[Path, str]] = []
        self._is_limited = False

    async def begin(self, share: float) -> str:
        """Leave this share, 0 to 1; returns by what.

        Raises:
            BoardError: the board lets neither be changed.
        """
        try:
            for policy in self._policies:
                self._slow(policy, share)
        except (OSError, ValueError) as error:
            raise BoardError(f"the clock cannot be changed: {error}") from None
        if self._before:
            return f"scaling_max_freq of {len(self._before)} clocks"
        self._is_limited = True
        await self._service.limit(share)
        return "CPUQuota of the node's service: this board's clock cannot be set"

    async def end(self) -> None:
        """Give back what there was, of every clock. Raises: BoardError, the first."""
        errors: list[BoardError] = []
        for path, content in self._before:
            try:
                path.write_text(content)
            except OSError as error:
                errors.append(BoardError(f"{path}: {error.strerror}"))
        self._before.clear()
        if self._is_limited:
            self._is_limited = False
            await self._service.limit(None)
        if errors:
            raise errors[0]

    def _slow(self, policy: Path, share: float) -> None:
        path = policy / "scaling_max_freq"
        before = path.read_text()
        low_khz, high_khz = (int((policy / f"cpuinfo_{end}_freq").read_text()) for end in ("min", "max"))
        self._before.append((path, before))
        path.write_text(f"{max(low_khz, round(share * high_khz))}\n")
