"""Which manifests a node takes, once somebody that it trusts has signed them; and what a trial is tested for."""

from typing import Final

from flightsw.errors import SensorError, StorageError
from flightsw.ports import Board, Disk, Slots
from flightsw.storage.manifest import Manifest, version_key

TEST_FILE: Final = "self-test"


def self_test(board: Board, disk: Disk) -> str | None:
    """What is wrong with the node that software could be to blame for, or None: sensors that cannot be read, a disk
    that does not give back what it took."""
    try:
        board.sensors()
        disk.replace(TEST_FILE, TEST_FILE.encode())
        found = disk.read(TEST_FILE)
        disk.remove(TEST_FILE)
    except (SensorError, StorageError) as error:
        return str(error)
    return None if found == TEST_FILE.encode() else "the disk gives back something else than it took"


def objection(manifest: Manifest, last: Manifest | None, slots: Slots) -> str | None:
    """Why a manifest is not for this node now, or None.

    Args:
        manifest: whose signature holds.
        last: the last that was accepted: a manifest with a lower serial number is an old one that somebody replays.
        slots: of the board.
    """
    status = slots.status()
    running = version_key(status.version)
    if manifest.target != slots.target:
        return f"target {manifest.target!r}, this board boots {slots.target!r}"
    if manifest.minimum_launcher > slots.launcher:
        return f"needs launcher {manifest.minimum_launcher}, this is {slots.launcher}"
    if running < version_key(manifest.minimum_version):
        return f"needs version {manifest.minimum_version} to start from, {status.version} runs"
    if manifest.image == status.image:
        return f"this image runs already, version {status.version}"
    if version_key(manifest.version) <= running and not manifest.allow_downgrade:
        return f"version {manifest.version} is not above {status.version}, and no downgrade is allowed"
    if last is not None and manifest.serial < last.serial:
        return f"serial {manifest.serial} is below {last.serial}, the last that was accepted"
    if last is not None and manifest.serial == last.serial and manifest != last:
        return f"serial {manifest.serial} was that of another manifest"
    return None
