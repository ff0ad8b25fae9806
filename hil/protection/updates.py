"""What goes wrong with an update of the software."""

from functools import cache
from typing import Any, Final

from boards.simulated.images import TARGET, Defect, SimulatedImage
from flightsw.dictionary import flight_dictionary
from flightsw.objects.store import digest_of
from flightsw.ports import ResetCause
from flightsw.storage.manifest import KEY_BYTES, Manifest, public_key_of, sign_manifest
from flightsw.wire.messages import Mode, Stage
from hil.bench.single import NODE, Single
from hil.protection.scenario import Act, Scenario, require

OURS: Final = bytes(range(KEY_BYTES))
"""Private key of those who may update the node."""
THEIRS: Final = bytes(range(1, KEY_BYTES + 1))
VERSION: Final = "0.9.0"
CRASHES: Final = SimulatedImage(version=VERSION, defects=(Defect(kind="crash", after_s=30.0),))
HANGS: Final = SimulatedImage(version=VERSION, defects=(Defect(kind="hang", after_s=30.0),))
SOUND: Final = SimulatedImage(version=VERSION)


@cache
def _options() -> dict[str, Any]:
    return {"update_keys": (public_key_of(OURS).hex(),)}


def _manifest(image: SimulatedImage, key: bytes) -> bytes:
    data = image.encode()
    manifest = Manifest(TARGET, VERSION, digest_of(data), len(data), 1, "0.1.0", 1, False, flight_dictionary().digest)
    return sign_manifest(manifest, key).encode()


async def stage(rig: Single, image: SimulatedImage, key: bytes = OURS) -> Stage:
    """Offer an image to the node; returns how the command ended."""
    data = image.encode()
    rig.ground.store.put(data)
    end = await rig.command("UPDATE.STAGE", _manifest(image, key), is_armed=True)
    if end.stage is Stage.COMPLETED:
        rig.ground.transfers.push(digest_of(data), NODE, rig.loop.now_ns)
    return end.stage


def trial(image: SimulatedImage) -> Act:
    """Stage an image and try it."""

    async def inject(rig: Single) -> None:
        await stage(rig, image)
        await rig.until(lambda: any(key == "UPDATE.STAGED" for key, _ in rig.events()), within_s=300.0)
        await rig.command("UPDATE.TRY", is_armed=True)

    return inject


async def forged(rig: Single) -> None:
    """Offer an image that somebody else has signed."""
    require(await stage(rig, SOUND, THEIRS) is Stage.FAILED, "a forged manifest was taken")


async def torn(rig: Single) -> None:
    """Lose power while the image is on its way, and once more while it is installed."""
    await stage(rig, SOUND)
    rig.satellite.cut()
    rig.satellite.boot_later(5.0, ResetCause.POWER_CYCLE)
    await rig.until(lambda: rig.satellite.is_on, within_s=30.0)
    await rig.run(1.0)
    rig.satellite.cut()
    rig.satellite.boot_later(5.0, ResetCause.POWER_CYCLE)
    await rig.until(lambda: rig.satellite.is_on, within_s=30.0)


async def runs_the_old(rig: Single) -> None:
    """The node runs the version that it ran before."""
    await rig.run(120.0)
    version = rig.satellite.slots.status().version
    require(version != VERSION, f"the node runs {version}")


SCENARIOS: Final = (
    Scenario(
        name="forged_update",
        fault="an image that somebody else has signed",
        inject=forged,
        mode=Mode.NOMINAL,
        events=("UPDATE.REFUSED manifest refused: signed with the unknown key",),
        within_s=60.0,
        check=runs_the_old,
        options=_options(),
    ),
    Scenario(
        name="crashing_update",
        fault="a new version crashes half a minute after each boot",
        inject=trial(CRASHES),
        mode=Mode.NOMINAL,
        events=("UPDATE.TRIAL", "UPDATE.ROLLED_BACK"),
        within_s=1200.0,
        check=runs_the_old,
        options=_options(),
    ),
    Scenario(
        name="hanging_update",
        fault="a new version stands still half a minute after each boot",
        inject=trial(HANGS),
        mode=Mode.NOMINAL,
        events=("UPDATE.TRIAL", "UPDATE.ROLLED_BACK"),
        within_s=1800.0,
        check=runs_the_old,
        options=_options(),
    ),
    Scenario(
        name="torn_update",
        fault="power is lost twice while an image is fetched and installed",
        inject=torn,
        mode=Mode.NOMINAL,
        events=("UPDATE.STAGED",),
        within_s=900.0,
        check=runs_the_old,
        recovery=(("UPDATE.ABORT",),),
        options=_options(),
    ),
)
