"""The launcher under a service manager: it says that it is there, and goes on saying that it lives."""

import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


def test_the_launcher_tells_the_service_manager_and_its_program_does_not(tmp_path):
    # settings that are wrong: the program ends at once, and the launcher with it
    (tmp_path / "node.toml").write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        command = [sys.executable, "-m", "boards.launcher", "--config", tmp_path / "node.toml"]
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PATH": "/usr/bin"}
        done = subprocess.run(
            [*command, "--slots", tmp_path / "slots"], cwd=ROOT, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 2
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"


def test_without_a_service_manager_nobody_is_told(tmp_path):
    (tmp_path / "node.toml").write_text("")
    command = [sys.executable, "-m", "boards.launcher", "--config", tmp_path / "node.toml"]
    done = subprocess.run([*command, "--slots", tmp_path / "slots"], cwd=ROOT, env={}, capture_output=True, check=False)
    assert done.returncode == 2
