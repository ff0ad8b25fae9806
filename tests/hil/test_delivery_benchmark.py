"""The delivery benchmark: its runs finish, a failing one says how to replay it, the peer does what is said of it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def play(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "delivery.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def delivery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("delivery", BENCHMARKS / "delivery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "delivery", module)
    spec.loader.exec_module(module)
    return module


def test_all_quick_runs_finish_with_the_right_bytes(tmp_path):
    path = tmp_path / "delivery.json"
    done = play("--quick", "--peer-runs", "0", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result["name"]: result for result in json.loads(path.read_text())["results"]}
    assert results["finished with the right bytes"]["value"] == 100
    assert results["finished with the right bytes"]["unit"] == "% of 6 runs"
    assert 1 < results["bytes on the link without trouble, median"]["value"] < 1.2
    assert 5 < results["frames lost or damaged while the link was up"]["value"] < 95  # trouble there was
    assert results["frames sent into outages"]["value"] > 0
    assert "64 KiB ber-1e-04" in done.stdout


def test_a_run_can_be_replayed_and_is_the_same_each_time():
    first, again = (play("--only", "64KiB/loss-20%/reboot-receiver/fetch", "--seed", "3") for _ in range(2))
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == again.stdout
    assert "finished=True" in first.stdout


def test_a_case_that_is_not_there_is_a_mistake_of_usage():
    done = play("--only", "64KiB/bad/luck/push")
    assert done.returncode == 2
    assert "expected a case such as" in done.stderr


def test_a_failing_run_is_counted_and_prints_how_to_replay_it(delivery, monkeypatch, capsys):
    """The receiver keeps nothing, and a day is short."""
    monkeypatch.setattr("delivery_world.LIMIT_S", 100.0)
    monkeypatch.setattr("flightsw.objects.receiver.Receiver.on_chunk", lambda *_: None)
    case = delivery.Case(64 << 10, loss=0.1, outage_s=60.0)
    cells = delivery.run_ours([(case, 5)], delivery.Report("delivery"))
    assert [str(tally) for tally in cells.values()] == ["0/1"]
    printed = capsys.readouterr().out
    assert "replay: python benchmarks/delivery.py --only 64KiB/loss-10%/outage-60s/push --seed 5" in printed
    assert "finished with the right bytes: 0 % of 1 runs" in printed


def test_a_thousand_runs_are_spread_over_all_cases_both_ways(delivery):
    runs = delivery.plan(1000, delivery.CASES)
    assert len(delivery.CASES) == 80
    assert len({case.name for case, _ in runs}) == 160
    assert len(set(runs)) == 1000


def test_the_peer_finishes_on_a_clean_link_and_not_after_an_outage(delivery, peer_python):
    cases = [delivery.Case(64 << 10), delivery.Case(64 << 10, outage_s=60.0)]
    done = subprocess.run(
        [str(peer_python("cfdp-py")), str(BENCHMARKS / "cfdp_peer.py")],
        check=True,
        input=json.dumps([delivery.peer_case(case, 1) for case in cases]),
        capture_output=True,
        text=True,
    )
    calm, struck = (json.loads(line) for line in done.stdout.splitlines())
    assert calm["finished"]
    assert calm["frames"] == 69
    assert not struck["finished"]
    assert struck["faults"] == ["POSITIVE_ACK_LIMIT_REACHED"]
