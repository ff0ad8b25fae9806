"""A board that boots what its slots say, images for it, and a ground that sends what is wanted."""

import pytest

from boards.simulated.images import SimulatedImage, SimulatedSlots
from flightsw.core.update import Update
from flightsw.core.update_states import UpdateSettings, UpdateState
from flightsw.dictionary import check_arguments, check_value, flight_dictionary
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.ports import Random, ResetCause
from flightsw.storage.manifest import Manifest, parse_report, public_key_of, sign_manifest
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk

S = 1_000_000_000
KEY = bytes(range(32))
DICTIONARY = flight_dictionary()
SETTINGS = UpdateSettings(stable_s=60, window_s=600)


def image_of(version, *defects):
    return SimulatedImage(version=version, defects=defects).encode()


def manifest_of(data, version="0.2.0", **changes):
    fields = {
        "target": "simulated",
        "version": version,
        "image": digest_of(data),
        "size_bytes": len(data),
        "serial": 5,
        "minimum_version": "0.1.0",
        "minimum_launcher": 1,
        "allow_downgrade": False,
        "dictionary": bytes(8),
    }
    return Manifest(**(fields | changes))


def signed(manifest, key=KEY):
    return sign_manifest(manifest, key).encode()


class PowerCutError(Exception):
    """The power fails now."""


class FragileDisk(SimulatedDisk):
    """A disk whose power fails before or after one of its writes."""

    def __init__(self, capacity_bytes=1 << 20, seed=1):
        super().__init__(capacity_bytes, Random(seed))
        self.writes_left = None

    def replace(self, name, data):
        self.step()
        super().replace(name, data)
        self.step()

    def remove(self, name):
        self.step()
        super().remove(name)

    def step(self):
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                self.writes_left = None
                raise PowerCutError


class Node:
    """A board that boots what its slots say, with an update and a ground that sends what is wanted."""

    def __init__(self, *images, disk=None, keys=(KEY,), settings=SETTINGS, window=True):
        self.disk = disk or FragileDisk()
        self.images = {digest_of(image): image for image in images}
        self.keys = tuple(public_key_of(key) for key in keys)
        self.settings = settings
        self.reports, self.audits = [], []
        self.boots = []
        self.is_sending = True
        self.self_test = None
        self.boot()

    def boot(self):
        self.slots = SimulatedSlots(self.disk, "sat-01", "0.1.0")
        self.software = self.slots.boot()
        self.boots.append(self.slots.record.running)
        self.store = ObjectStore(self.disk, quota_bytes=1 << 19)
        self.wanted = []
        self.is_reset = False
        self.now_ns = 0
        self.update = Update(
            disk=self.disk,
            slots=self.slots,
            store=self.store,
            keys=self.keys,
            want_object=lambda digest, size_bytes: self.wanted.append(digest),
            reset=self.reset,
            report=self.report,
            audit=lambda kind, fields: self.audits.append(fields),
            settings=lambda: self.settings,
            self_test=lambda: self.self_test,
            boot_count=len(self.boots),
            now_ns=0,
        )

    def reset(self, cause):
        assert cause is ResetCause.RESET_COMMAND
        self.is_reset = True

    def report(self, key, *arguments):
        spec = DICTIONARY.events[key]
        for one, value in zip(spec.arguments, arguments, strict=True):
            assert check_value(one, value) is None
        self.reports.append((key.removeprefix("UPDATE."), *arguments))

    def names(self):
        return [name for name, *_ in self.reports]

    def cycle(self, seconds=10):
        self.now_ns += seconds * S
        self.update.cycle(self.now_ns)
        if self.is_sending:
            for digest in self.wanted:
                self.store.put(self.images[digest])
            self.wanted = []
        channels = self.update.channels()
        for name, value in channels.items():
            assert check_value(DICTIONARY.channels[f"UPDATE.{name}"], value) is None
        own = {one.name for one in DICTIONARY.channels.values() if one.component == "UPDATE"}
        assert set(channels) == own - {"cmdpc", "cmdec"}
        if self.is_reset:
            self.boot()

    def cycles(self, count=5):
        for _ in range(count):
            self.cycle()

    def command(self, name, *arguments):
        spec = DICTIONARY.commands[f"UPDATE.{name}"]
        assert check_arguments(spec, arguments) is None
        outcome = self.update.handlers()[name](arguments)
        if self.is_reset:
            self.boot()
        return outcome

    def query(self):
        return parse_report(self.command("QUERY", len(self.boots)).detail)

    def stage(self, data):
        outcome = self.command("STAGE", data)
        if outcome.code is CommandCode.OK:
            self.cycles(2)
        return outcome

    @property
    def state(self):
        return self.update.state

    def upgrade(self, image, **changes):
        """Stage and try; returns when the trial has booted."""
        assert self.stage(signed(manifest_of(image, **changes))).code is CommandCode.OK
        assert self.state is UpdateState.STAGED
        assert self.command("TRY").code is CommandCode.OK


@pytest.fixture(scope="session")
def make_node():
    return Node


@pytest.fixture(scope="session")
def make_disk():
    return FragileDisk


@pytest.fixture(scope="session")
def power_cut_error():
    return PowerCutError


@pytest.fixture(scope="session", name="image_of")
def _image_of():
    return image_of


@pytest.fixture(scope="session", name="manifest_of")
def _manifest_of():
    return manifest_of


@pytest.fixture(scope="session", name="signed")
def _signed():
    return signed


@pytest.fixture(scope="session")
def good():
    return image_of("0.2.0")


@pytest.fixture(scope="session")
def newer():
    return image_of("0.3.0")
