"""Content-addressed objects on a disk that may be cut, full or rotten.

| file | holds |
|---|---|
| `objects/<digest in hex>` | a whole object, its bytes alone; its name says what they must be |
| `objects/<digest in hex>` | a whole synthetic object: empty; its name says what it stands for (`synthetic.py`) |
| `objects/<digest in hex>.part` | chunks of an object that is not whole yet (`parts.py`) |

Nothing leaves the store without its digest being checked. A copy that does not hold, or cannot be read, is removed: it
can be fetched again, and a name that is held but unusable would make its users wait for ever. When room is needed,
unpinned whole objects go, the one used longest ago first. Order of use starts as the order of names after a reset;
pins are counted and end at a reset. Partial objects are never evicted for others, or two that compete for room would
drop each other for ever.

A begun object has its room from the start: all of it within the quota, and on the disk what its chunks will take beside
what the other begun objects will take, and once more for the largest, as chunks and whole object stand side by side
when it is put together. Others may fill the disk all the same; then a chunk fails, and what came stays. A synthetic
object takes its size of the quota and next to nothing of the disk.
"""

from contextlib import suppress
from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import Shape, digest_of, full_bitmap, shape_of
from flightsw.objects.parts import Part, part_bytes
from flightsw.objects.synthetic import SyntheticObject, synthetic_of
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
        self.disk: Final = disk
        """Where the objects lie; what else belongs to transfers lies there too."""
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
        self._make_room(shape_of(digest, len(data)), is_part=False)
        self._keep(digest, data, len(data))
        return digest

    def put_synthetic(self, synthetic: SyntheticObject) -> bytes:
        """Keep an object that has a size and no bytes; durable on return. Returns its name.

        Raises:
            StorageError: no room, or the disk is broken.
        """
        digest = synthetic.digest
        if digest not in self._sizes:
            self._discard_part(digest)
            self._make_room(shape_of(digest, synthetic.size_bytes), is_part=False)
            self._keep(digest, b"", synthetic.size_bytes)
        return digest

    def has(self, digest: bytes) -> bool:
        """Whether the object is here, whole."""
        return digest in self._sizes

    def get(self, digest: bytes) -> bytes:
        """The object's bytes, checked.

        Raises:
            StorageError: not here, synthetic, or what is here is rotten; then it is removed.
        """
        if digest not in self._sizes:
            raise StorageError(f"object {digest.hex()[:16]} is not here")
        if synthetic_of(digest) is not None:
            raise StorageError(f"object {digest.hex()[:16]} is synthetic and has no bytes")
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

    def shape(self, digest: bytes) -> Shape:
        """How a whole object is cut into chunks.

        Raises:
            StorageError: it is not here.
        """
        return shape_of(digest, self.size_bytes(digest))

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

        A begun object of another size starts again while it has no chunk; with one, its size is proven.

        Raises:
            StorageError: no object of that name can have that size, no room, or the disk is broken.
        """
        if digest in self._sizes:
            return
        part = self._parts.get(digest)
        if part is not None:
            if part.size_bytes == size_bytes:
                return
            if part.held_count:
                raise StorageError(f"object of {size_bytes} bytes, but chunks of it prove {part.size_bytes}")
            self._discard_part(digest)
            self.restarted_count += 1
        shape = shape_of(digest, size_bytes)
        self._make_room(shape, is_part=True)
        self._parts[digest] = Part(self._disk, object_name(digest) + PART_SUFFIX, digest, size_bytes)
        self._used_bytes += size_bytes

    def add_chunk(self, digest: bytes, index: int, data: bytes) -> bool:
        """Keep one chunk of a begun object, which the caller has checked; one that is held already changes nothing.

        Returns whether the object is whole.

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
            return full_bitmap(self.shape(digest).chunks_count)
        return b""

    def held(self, digest: bytes) -> bytes:
        """Chunks held of a begun object, durably or not; empty when nothing of it is here."""
        part = self._parts.get(digest)
        return b"" if part is None else part.bitmap()

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
        synthetic = synthetic_of(digest)
        try:
            size_bytes = len(self._disk.read(name)) if synthetic is None else synthetic.size_bytes
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
            part = Part(self._disk, name, digest)
        except StorageError:
            self._disk.remove(name)
            return
        self._parts[digest] = part
        self._used_bytes += part.size_bytes
        if part.is_full():
            self._complete(digest, part)

    def _complete(self, digest: bytes, part: Part) -> bool:
        data = b"" if part.shape.is_synthetic else part.joined()
        if not part.shape.is_synthetic and (len(data) != part.size_bytes or digest_of(data) != digest):
            self.restarted_count += 1
            self._discard_part(digest)
            self.begin(digest, part.size_bytes)
            return False
        self._keep(digest, data, part.size_bytes)
        self._discard_part(digest)
        return True

    def _keep(self, digest: bytes, data: bytes, size_bytes: int) -> None:
        self._disk.replace(object_name(digest), data)
        self._sizes[digest] = size_bytes
        self._used_bytes += size_bytes

    def _touch(self, digest: bytes) -> None:
        self._sizes[digest] = self._sizes.pop(digest)

    def _read_checked(self, digest: bytes) -> bytes | None:
        try:
            data = self._disk.read(object_name(digest))
        except StorageError:
            data = None
        if data is not None and (synthetic_of(digest) is not None or digest_of(data) == digest):
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

    def _make_room(self, shape: Shape, *, is_part: bool) -> None:
        """Evict until an object, whole or in chunks, fits the quota, and the disk beside all that was promised.

        Evicts nothing in vain. Raises: StorageError.
        """
        size_bytes, parts = shape.size_bytes, self._parts.values()
        disk_bytes = part_bytes(shape) if is_part else 0 if shape.is_synthetic else size_bytes
        to_join = [part.shape for part in parts] + ([shape] if is_part else [])
        joined_bytes = max((0 if one.is_synthetic else one.size_bytes for one in to_join), default=0)
        promised_bytes = sum(part.left_bytes for part in parts) + joined_bytes
        quota_free_bytes = self._quota_bytes - self._used_bytes
        disk_free_bytes = self._disk.free_bytes() - promised_bytes
        quota_lack_bytes, disk_lack_bytes = size_bytes - quota_free_bytes, disk_bytes - disk_free_bytes
        evicted: list[bytes] = []
        for digest, held_bytes in self._sizes.items():
            if quota_lack_bytes <= 0 and disk_lack_bytes <= 0:
                break
            if digest not in self._pins:
                evicted.append(digest)
                quota_lack_bytes -= held_bytes
                disk_lack_bytes -= 0 if synthetic_of(digest) is not None else held_bytes
        if quota_lack_bytes > 0 or disk_lack_bytes > 0:
            where = "quota" if quota_lack_bytes > 0 else "disk"
            lack_bytes = max(quota_lack_bytes, disk_lack_bytes)
            raise StorageError(
                f"no space: {size_bytes} bytes needed; free are {max(0, quota_free_bytes)} of the quota of "
                f"{self._quota_bytes} and {max(0, disk_free_bytes)} on the disk; with all evicted that may be, "
                f"{lack_bytes} are missing ({where})"
            )
        for digest in evicted:
            self._drop(digest)
        self.evicted_count += len(evicted)
