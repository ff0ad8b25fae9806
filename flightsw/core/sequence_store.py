"""Sequences on the disk: each compiled image in two copies, the state of all in one log.

The state belongs to an image by the image's checksum: after a power cut between the two writes the newer image is
found without its state, and counts as just loaded.
"""

from dataclasses import dataclass
from typing import Final

from flightsw.dictionary.sequence_file import SequenceImage
from flightsw.dictionary.sequence_state import SequenceState, decode_state, encode_state, fresh_state
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import SUFFIXES, TwoCopies
from flightsw.storage.state_log import StateLog

STATE_FILE: Final = "sequences"
IMAGE_FOLDER: Final = "sequences/"

RECORDS_MAX: Final = 256
"""Records in the log of states before it is written anew: a boot reads them all, some 100 kB at most."""


@dataclass(slots=True)
class Loaded:
    """One sequence in memory."""

    image: SequenceImage
    state: SequenceState
    copies: TwoCopies
    fault: str = ""
    """Why it cannot run; empty when it can."""
    due_ns: int = 0
    """When the next entry of a relative sequence that runs is due [monotonic ns]."""
    saved_ns: int = 0
    """When the state was written [monotonic ns]."""
    is_held: bool = False
    """It is absolute, runs, and mission time is not known."""


@dataclass(slots=True)
class Found:
    """What a boot finds."""

    sequences: dict[str, Loaded]
    lost: list[tuple[str, str]]
    """(name, reason) of images that cannot be read."""
    repaired_count: int
    """Images of which one copy was mended."""
    progress_is_sure: bool
    """Whether every acknowledged record of progress is there."""


class SequenceStore:
    """Images and states on one disk.

    Args:
        disk: where they lie.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._log = StateLog(disk, STATE_FILE)
        self._unsaved: dict[str, SequenceState] = {}

    def read(self) -> Found:
        """All that is on the disk. What is damaged in both copies is named as lost and removed."""
        states, is_sound = self._states()
        names = {name.removeprefix(IMAGE_FOLDER)[: -len(SUFFIXES[0])] for name in self._disk.names(IMAGE_FOLDER)}
        found = Found({}, [], 0, is_sound and not self._log.lost_count)
        for name in sorted(names):
            copies = TwoCopies(self._disk, IMAGE_FOLDER + name)
            state = states.get(name)
            try:
                if state is not None and not state.is_loaded:  # unloaded, and the power went before the files did
                    copies.remove()
                    continue
                data = copies.load()
                if data is None:
                    continue
                image = SequenceImage(data)
            except (StorageError, MessageError) as error:
                found.lost.append((name, str(error)))
                self._forget_lost(copies)
                continue
            found.repaired_count += copies.repaired_count
            if state is None or state.checksum != image.checksum:
                state = fresh_state(image)
            found.sequences[name] = Loaded(image, state, copies)
        return found

    def put(self, image: SequenceImage) -> Loaded:
        """Keep an image, with a fresh state.

        Raises:
            StorageError: the image is not on the disk, or its state is not.
        """
        copies = TwoCopies(self._disk, IMAGE_FOLDER + image.header.name)
        copies.store(image.image)
        state = fresh_state(image)
        self._append(state)
        return Loaded(image, state, copies)

    def save(self, state: SequenceState) -> None:
        """Make a state durable.

        Raises:
            StorageError: the disk did not take it; `retry` tries again.
        """
        try:
            self._append(state)
        except StorageError:
            self._unsaved[state.name] = state
            raise
        self._unsaved.pop(state.name, None)

    @property
    def has_unsaved(self) -> bool:
        """Whether a state waits for the disk."""
        return bool(self._unsaved)

    def retry(self) -> None:
        """Write what the disk did not take; what it still does not take waits on."""
        for state in list(self._unsaved.values()):
            try:
                self.save(state)
            except StorageError:
                return

    def remove(self, loaded: Loaded) -> None:
        """Forget a sequence.

        Raises:
            StorageError: it is not forgotten.
        """
        loaded.state.is_loaded = False
        try:
            self._append(loaded.state)
        except StorageError:
            loaded.state.is_loaded = True
            raise
        self._unsaved.pop(loaded.state.name, None)
        loaded.copies.remove()

    def reread(self, loaded: Loaded) -> SequenceImage | None:
        """The image from the disk again, when it is the one that was loaded and holds."""
        try:
            data = loaded.copies.load()
            image = None if data is None else SequenceImage(data)
        except (StorageError, MessageError):
            return None
        return image if image is not None and image.checksum == loaded.state.checksum else None

    def _append(self, state: SequenceState) -> None:
        if self._log.records_count >= RECORDS_MAX:
            states, _ = self._states()
            states[state.name] = state
            kept = [one for one in states.values() if one is state or one.is_loaded or self._has_image(one.name)]
            self._log.snapshot([encode_state(one) for one in kept])
            return
        self._log.append(encode_state(state))
        self._log.sync()

    def _states(self) -> tuple[dict[str, SequenceState], bool]:
        """The newest state of each name, and whether every record decodes."""
        states: dict[str, SequenceState] = {}
        is_sound = True
        for record in self._log.records():
            try:
                state = decode_state(record)
            except MessageError:  # of another version of this software: what it said is not known
                is_sound = False
                continue
            states[state.name] = state
        return states, is_sound

    def _has_image(self, name: str) -> bool:
        return any(self._disk.exists(IMAGE_FOLDER + name + suffix) for suffix in SUFFIXES)

    def _forget_lost(self, copies: TwoCopies) -> None:
        try:
            copies.remove()
        except StorageError:
            return  # named as lost at the next boot again
