"""Images of software for virtual nodes: a version, and how it misbehaves.

An image is JSON, so that a bad version for a test is a line of text:

```json
{"version": "0.2.0", "defects": [{"kind": "crash", "after_s": 30, "nodes": ["sat-03"]}]}
```
"""

from typing import Annotated, Final, Literal

import msgspec

from boards.slots import DiskSlots
from flightsw.errors import ConfigError
from flightsw.ports import Disk
from flightsw.storage.manifest import Version

TARGET: Final = "simulated"
"""What manifests call these images."""
AFTER_S_MAX: Final = 1e7
"""Latest defect [s after the boot]: the longest run."""
PREFIX: Final = "slots/"


class Defect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that a version does wrong."""

    kind: Literal["crash", "hang", "mute", "self_test"]
    """`crash` ends the manager, `hang` stops it until the watchdog bites, `mute` lets nothing leave the node,
    `self_test` fails the test that a trial must pass."""
    after_s: Annotated[float, msgspec.Meta(ge=0, le=AFTER_S_MAX)] = 0.0
    """When it begins [s after the boot]; a self-test fails from the start."""
    nodes: tuple[str, ...] = ()
    """Names of the nodes that it strikes; all when empty."""


class SimulatedImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version of the software."""

    version: Version
    defects: Annotated[tuple[Defect, ...], msgspec.Meta(max_length=64)] = ()

    def encode(self) -> bytes:
        """The bytes of the image."""
        return msgspec.json.encode(self)

    def defect(self, kind: str, node: str) -> Defect | None:
        """The defect of that kind that strikes a node of that name."""
        return next((one for one in self.defects if one.kind == kind and (not one.nodes or node in one.nodes)), None)


def decode_image(data: bytes) -> SimulatedImage:
    """The image in some bytes.

    Raises:
        ConfigError: they are none.
    """
    try:
        return msgspec.json.decode(data, type=SimulatedImage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"simulated image: {error}") from None


class SimulatedSlots(DiskSlots):
    """The slots of a virtual node, on its own disk.

    Args:
        disk: of the node.
        node: name of the node.
        factory_version: of the factory image, which has no defects.
    """

    def __init__(self, disk: Disk, node: str, factory_version: str) -> None:
        super().__init__(disk, TARGET, factory_version, PREFIX)
        self._node = node
        self._factory = factory_version
        self.software: SimulatedImage | None = None
        """That runs; None for the factory image."""

    def boot(self) -> SimulatedImage | None:
        """Decide what boots and load it; None for the factory image. An image that is none crashes at once.

        Raises:
            StorageError: the disk is broken.
        """
        slot = self.choose()
        self.software = None
        if slot in self.record.contents:
            try:
                self.software = decode_image(self.image(slot))
            except ConfigError:
                self.software = SimulatedImage(
                    version=self.record.contents[slot].version, defects=(Defect(kind="crash"),)
                )
        return self.software

    def defect(self, kind: str) -> Defect | None:
        """What the running software does wrong here."""
        return None if self.software is None else self.software.defect(kind, self._node)

    def self_test(self) -> str | None:
        """As of `DiskSlots`, and what the image makes of it."""
        if self.defect("self_test") is not None:
            return "the image fails its self-test"
        return super().self_test()
