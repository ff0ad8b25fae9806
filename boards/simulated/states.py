"""The file in which the world of a simulated board outlives the program that runs its node.

It is the world's, not flight's: no flight code reads it. It is replaced whole, so that a kill at any instant leaves the
old one or the new; it is not synced, since a power cut of the machine that simulates is no event of the mission.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from boards.simulated.board import BoardState
from flightsw.config import BoardProfile
from flightsw.errors import ConfigError, StorageError
from flightsw.host.settings import load_json
from flightsw.ports import ResetCause

TEMPORARY_SUFFIX: Final = ".new"
CauseName = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(cause.name for cause in ResetCause)})$")]


class SavedBoard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the file holds."""

    board: BoardState
    next_cause: CauseName = "POWER_CYCLE"
    """Why the next boot will happen, as far as is known now; a program that dies without a word leaves the default."""

    def cause(self) -> ResetCause:
        """Why the next boot happens."""
        return ResetCause[self.next_cause]


def load_board(path: Path, profile: BoardProfile) -> SavedBoard | None:
    """The saved world of a board, or None when there is none yet.

    Raises:
        ConfigError: the file cannot be read, or is of another board.
    """
    if not path.exists():
        return None
    saved = load_json(path, SavedBoard)
    battery_j = profile.battery_wh.value * 3600.0
    if not 0.0 <= saved.board.charge_j <= battery_j:
        raise ConfigError(
            f"{path}: board.charge_j = {saved.board.charge_j:g}: expected 0 to {battery_j:g}, the battery of "
            f"{profile.name}; remove the file to start with a new board"
        )
    return saved


def save_board(path: Path, saved: SavedBoard) -> None:
    """Replace the file.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        temporary.write_bytes(msgspec.json.encode(saved))
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
