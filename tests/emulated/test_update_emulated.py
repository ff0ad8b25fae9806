"""A signed update comes to an emulated board over its UART, crashes there, and the board is back at its own version."""

import io
import zipfile
from importlib import metadata

import msgspec
import pytest

from flightsw.dictionary import flight_dictionary
from flightsw.objects.digest import digest_of
from flightsw.storage.manifest import Manifest, public_key_of, sign_manifest
from hil.bench.execute import real_time
from hil.bench.handles import Cluster
from hil.bench.run import Bench
from hil.bench.scenario import load, with_kind
from hil.bench.stepped import SteppedRun
from hil.bench.surroundings import Surroundings, machines_of

pytestmark = pytest.mark.emulated

KEY = bytes(range(32))
VERSION = "0.2.0"
PATIENCE_S = 900.0
"""Longest wait [mission s]: three starts of the program on an emulated processor that others keep busy too."""


def crashing_wheel():
    """A wheel whose program ends as soon as it is started: small, since a UART carries it."""
    files = {
        "boards/__init__.py": "",
        "boards/__main__.py": "raise RuntimeError('a bad update')\n",
        f"flatrack-{VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: flatrack\nVersion: {VERSION}\n",
        f"flatrack-{VERSION}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return held.getvalue()


def test_an_update_that_crashes_is_left_by_the_board_itself_and_the_ground_is_told(image, ready, tmp_path):
    scenario = with_kind(load("table"), "emulated", "")
    manager = msgspec.structs.replace(scenario.manager, update_keys=(public_key_of(KEY).hex(),))
    scenario = msgspec.structs.replace(scenario, manager=manager)
    surroundings = Surroundings(machines_of(image, ready))
    bench = Bench(scenario, 7, folder=tmp_path, pace=real_time(scenario, 2.0), surroundings=surroundings)
    with SteppedRun(bench) as run:
        fleet = Cluster(run)
        board = fleet["sat-01"].wait_for_beacon(within_s=PATIENCE_S)

        wheel = crashing_wheel()
        digest = flight_dictionary().digest
        manifest = Manifest("wheel", VERSION, digest_of(wheel), len(wheel), 1, "0.1.0", 1, False, digest)
        fleet.ask("put_object", wheel)
        fleet.ask("update_start", sign_manifest(manifest, KEY).encode(), [board.name], [1])
        fleet.until(lambda: fleet.ask("update_status")["state"] != "RUNNING", PATIENCE_S, "the end of the campaign")

        campaign = fleet.ask("update_status")
        (row,) = campaign["nodes"]
        assert (campaign["state"], row["state"]) == ("STOPPED", "FAILED"), row
        told = board.wait_for_event("UPDATE.ROLLED_BACK", within_s=PATIENCE_S)
        assert told == f"back to version {metadata.version('flatrack')}: 2 boots of slot A without a commit"
        board.wait_for_beacon(boot_count=2, within_s=PATIENCE_S)
        fleet.until(lambda: board.telemetry("UPDATE").get("UPDATE.state") == "ROLLED_BACK", PATIENCE_S, "its telemetry")
        assert board.telemetry("UPDATE")["UPDATE.slot"] == "F"
        assert board.command("NODE.NOOP", within_s=PATIENCE_S).is_completed
        outcome = run.end()
    assert outcome.passed, (outcome.violations, outcome.crash)
