"""Content-addressed objects on a disk that may be cut, full or rotten.

| file | holds |
|---|---|
| `objects/<digest in hex>` | a whole object, its bytes alone; its name says what they must be |
| `objects/<digest in hex>.part` | chunks of an object that is not whole yet (`parts.py`) |

Nothing leaves the store without its digest being checked. A copy that does not hold, or cannot be read, is removed: it
can be fetched again, and a name that is held but unusable would make its users wait for ever. When room is needed,
unpinned whole objects go, the one used longest ago first. Order of use starts as the order of names after a reset;
pins are counted and end at a reset. Partial objects are never evicted for others, or two that compete for room would
drop each other for ever.
"""

from contextlib import suppress
from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import OBJECT_BYTES_MAX, chunks_count, digest_of, full_bitmap
from flightsw.objects.parts import Part
from flightsw.ports import Disk

__all__ = ["ObjectStore", "digest_of", "object_name"]

PREFIX: Final = "objects/"
PART_SUFFIX: Final = ".part"


def object_name(digest: bytes) -> str:
    """The file name of a whole object."""
    return PREFIX + digest.hex()


class ObjectStore:
    """All objects of one node, or of the ground.

    Args:
        disk: where they lie; what lies there already is taken over.
        quota_bytes: how much objects, whole and partial, may take [bytes].

    Raises:
        StorageError: the disk cannot be read.
    """

    def __init__(self, disk: Disk, quota_bytes: int) -> None:
        self._disk = disk
        self._quota_bytes = quota_bytes
        self._sizes: dict[bytes, int] = {}
        """Size of each whole object [bytes], in order of use: the one used longest ago first."""
        self._parts: dict[bytes, Part] = {}
        self._pins: dict[bytes, int] = {}
        self._used_bytes = 0
        self._scrubbed = b""
        self.evicted_count = 0
        self.rotten_count = 0
        """Whole objects removed because their bytes could not be read or did not hold."""
        self.restarted_count = 0
        """Partial objects whose chunks were all there, but were not the object: dropped, to be sent again."""
        self._recover()

    # -- whole objects

    def put(self, data: bytes) -> bytes:
        """Keep an object; durable on return. Returns its digest.

        Raises:
            StorageError: no room, or the disk is broken.
        """
        digest = digest_of(data)
        self._discard_part(digest)
        if digest in self._sizes:
            try:
                if self._disk.read(object_name(digest)) == data:
                    self._touch(digest)
                    return digest
            except StorageError:
                pass  # written again below
            self._drop_rotten(digest)
        self._make_room(len(data), len(data))
        self._keep(digest, data)
        return digest

    def has(self, digest: bytes) -> bool:
        """Whether the object is here, whole."""
        return digest in self._sizes

    def get(self, digest: bytes) -> bytes:
        """The object's bytes, checked.

        Raises:
            StorageError: not here, or what is here is rotten; then it is removed.
        """
        if digest not in self._sizes:
            raise StorageError(f"object {digest.hex()[:16]} is not here")
        data = self._read_checked(digest)
        if data is None:
            raise StorageError(f"object {digest.hex()[:16]} was rotten and is removed")
        self._touch(digest)
        return data

    def size_bytes(self, digest: bytes) -> int:
        """Size of a whole object [bytes].

        Raises:
            StorageError: it is not here.
        """
        if digest not in self._sizes:
            raise StorageError(f"object {digest.hex()[:16]} is not here")
        return self._sizes[digest]

    def digests(self) -> list[bytes]:
        """Digests of all whole objects, sorted."""
        return sorted(self._sizes)

    def remove(self, digest: bytes) -> bool:
        """Forget an object and its chunks; a pinned object stays. Returns whether it is gone."""
        self._discard_part(digest)
        if digest in self._pins:
            return False
        self._drop(digest)
        return True

    def pin(self, digest: bytes) -> None:
        """Keep this object from being evicted or removed until it is unpinned as often as it was pinned."""
        self._pins[digest] = self._pins.get(digest, 0) + 1

    def unpin(self, digest: bytes) -> None:
        """Take back one pin; no error when there is none."""
        count = self._pins.pop(digest, 0)
        if count > 1:
            self._pins[digest] = count - 1

    @property
    def used_bytes(self) -> int:
        """What whole objects take and partial ones will take [bytes]."""
        return self._used_bytes

    def scrub_next(self) -> bytes | None:
        """Check one object, in turn. Returns its digest when it was rotten; it is then removed."""
        if not self._sizes:
            return None
        digests = self.digests()
        digest = next((candidate for candidate in digests if candidate > self._scrubbed), digests[0])
        self._scrubbed = digest
        return digest if self._read_checked(digest) is None else None

    # -- partial objects

    def begin(self, digest: bytes, size_bytes: int) -> None:
        """Make room for an object that will come in chunks; no effect when it is here, whole or begun.

        A begun object of another size starts again: one of the two sizes is wrong, and only the right one can end.

        Raises:
            StorageError: too large, no room, or the disk is broken.
        """
        if digest in self._sizes:
            return
        part = self._parts.get(digest)
        if part is not None:
            if part.size_bytes == size_bytes:
                return
            self._discard_part(digest)
            self.restarted_count += 1
        # the part and the whole object stand side by side for an instant when it is completed
        self._make_room(size_bytes, 2 * size_bytes)
        self._parts[digest] = Part(self._disk, object_name(digest) + PART_SUFFIX, size_bytes)
        self._used_bytes += size_bytes

    def add_chunk(self, digest: bytes, index: int, data: bytes) -> bool:
        """Keep one chunk of a begun object; a chunk already held changes nothing. Returns whether the object is whole.

        Raises:
            StorageError: not begun, or the disk is full or broken.
        """
        if digest in self._sizes:
            return True
        part = self._parts.get(digest)
        if part is None:
            raise StorageError(f"object {digest.hex()[:16]} is not begun")
        if not part.holds(index):
            part.add(index, data)
        return part.is_full() and self._complete(digest, part)

    def bitmap(self, digest: bytes) -> bytes:
        """Chunks held, durably: bits all 1 when the object is whole and verified, empty when nothing is here.

        Raises:
            StorageError: the disk cannot make what it has durable; then nothing may be claimed.
        """
        part = self._parts.get(digest)
        if part is not None and not (part.is_full() and self._complete(digest, part)):
            return self._parts[digest].synced_bitmap()
        if digest in self._sizes:
            return full_bitmap(chunks_count(self._sizes[digest]))
        return b""

    def partial_digests(self) -> list[bytes]:
        """Digests of all begun objects, sorted."""
        return sorted(self._parts)

    def abandon(self, digest: bytes) -> None:
        """Forget the chunks of a begun object; no error when there are none."""
        self._discard_part(digest)

    # -- inside

    def _recover(self) -> None:
        for name in self._disk.names(PREFIX):
            stem = name[len(PREFIX) :].removesuffix(PART_SUFFIX)
            try:
                digest = bytes.fromhex(stem)
            except ValueError:
                continue
            if len(digest) != 32 or digest.hex() != stem:
                continue
            if name.endswith(PART_SUFFIX):
                self._recover_part(digest, name)
            else:
                self._recover_whole(digest, name)

    def _recover_whole(self, digest: bytes, name: str) -> None:
        try:
            size_bytes = len(self._disk.read(name))
        except StorageError:
            size_bytes = 0  # the scrub, or whoever asks for it first, will find it unreadable
        self._sizes[digest] = size_bytes
        self._used_bytes += size_bytes

    def _recover_part(self, digest: bytes, name: str) -> None:
        # names are sorted, so that a whole object comes before its part
        if digest in self._sizes:
            self._disk.remove(name)
            return
        try:
            part = Part(self._disk, name)
        except StorageError:
            self._disk.remove(name)
            return
        self._parts[digest] = part
        self._used_bytes += part.size_bytes
        if part.is_full():
            self._complete(digest, part)

    def _complete(self, digest: bytes, part: Part) -> bool:
        data = part.joined()
        if len(data) != part.size_bytes or digest_of(data) != digest:
            self.restarted_count += 1
            self._discard_part(digest)
            self.begin(digest, part.size_bytes)
            return False
        self._keep(digest, data)
        self._discard_part(digest)
        return True

    def _keep(self, digest: bytes, data: bytes) -> None:
        self._disk.replace(object_name(digest), data)
        self._sizes[digest] = len(data)
        self._used_bytes += len(data)

    def _touch(self, digest: bytes) -> None:
        self._sizes[digest] = self._sizes.pop(digest)

    def _read_checked(self, digest: bytes) -> bytes | None:
        try:
            data = self._disk.read(object_name(digest))
        except StorageError:
            data = None
        if data is not None and digest_of(data) == digest:
            return data
        self._drop_rotten(digest)
        return None

    def _drop_rotten(self, digest: bytes) -> None:
        self.rotten_count += 1
        self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        size_bytes = self._sizes.pop(digest, None)
        if size_bytes is not None:
            self._used_bytes -= size_bytes
            with suppress(StorageError):  # a file that cannot be removed comes back at the next start, and is checked
                self._disk.remove(object_name(digest))

    def _discard_part(self, digest: bytes) -> None:
        part = self._parts.pop(digest, None)
        if part is not None:
            self._used_bytes -= part.size_bytes
            with suppress(StorageError):  # as above
                part.remove()

    def _make_room(self, size_bytes: int, disk_bytes: int) -> None:
        """Evict until `size_bytes` fit the quota and `disk_bytes` the disk; evicts nothing in vain."""
        if size_bytes > OBJECT_BYTES_MAX:
            raise StorageError(f"no space: object of {size_bytes} bytes, at most {OBJECT_BYTES_MAX}")
        lack_bytes = self._used_bytes + size_bytes - self._quota_bytes
        lack_bytes = max(lack_bytes, disk_bytes - self._disk.free_bytes())
        if lack_bytes <= 0:
            return
        evicted: list[bytes] = []
        for digest, held_bytes in self._sizes.items():
            if digest not in self._pins:
                evicted.append(digest)
                lack_bytes -= held_bytes
                if lack_bytes <= 0:
                    break
        if lack_bytes > 0:
            raise StorageError(f"no space: {lack_bytes} of {size_bytes} bytes do not fit")
        for digest in evicted:
            self._drop(digest)
        self.evicted_count += len(evicted)
