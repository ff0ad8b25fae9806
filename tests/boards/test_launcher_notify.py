"""The launcher under a service manager: it says that it is there, and goes on saying that it lives."""

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
CREDENTIALS = struct.Struct("3i")
"""Process, user and group of who has sent. Source: unix(7), struct ucred."""


class Manager:
    """A service manager's socket: hears words, and by the kernel who has said each."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(PATIENCE_S)

    def hear(self):
        """(word, id of the process that said it)."""
        word, [(_, _, credentials)], _, _ = self.socket.recvmsg(256, socket.CMSG_SPACE(CREDENTIALS.size))
        return word, CREDENTIALS.unpack(credentials)[0]

    def words(self, count):
        """The next words but those for people, and who has said any of all that came."""
        words, pids = [], set()
        while len(words) < count:
            word, pid = self.hear()
            pids.add(pid)
            if not word.startswith(b"STATUS="):
                words.append(word)
        return words, pids


@pytest.fixture
def manager(tmp_path):
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


def launcher(folder, *options):
    """The command of a launcher."""
    command = [sys.executable, "-m", "boards.launcher", "--config", folder / "node.toml", "--slots", folder / "slots"]
    return [*command, *options]


def test_the_launcher_says_that_it_is_there(tmp_path, manager):
    (tmp_path / "node.toml").write_text("")  # settings that are wrong: the program ends at once, and the launcher too
    environment = {"NOTIFY_SOCKET": str(manager.path), "PATH": "/usr/bin"}
    done = subprocess.run(launcher(tmp_path), cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert manager.words(2)[0] == [b"READY=1", b"WATCHDOG=1"]


def test_the_launcher_says_how_often_its_program_has_ended(tmp_path, manager):
    (tmp_path / "node.toml").write_text("")
    environment = {"NOTIFY_SOCKET": str(manager.path), "PATH": "/usr/bin"}
    subprocess.run(launcher(tmp_path), cwd=ROOT, env=environment, capture_output=True, check=False)
    said = []
    while len(said) < 2:
        word, _ = manager.hear()
        if word.startswith(b"STATUS="):
            said.append(word)
    assert said == [b"STATUS=slot F runs, ended 0 times", b"STATUS=slot F does not run, ended 1 times"]


def test_a_program_under_the_launcher_speaks_to_the_launcher_and_not_to_its_manager(tmp_path, manager):
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "60000000"}
    command = launcher(tmp_path, "--await-config")
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        said = ""
        while "boards: waits for" not in said:  # from here on the program strokes, and so wakes the launcher
            said = process.stderr.readline().decode()
            assert said, "the launcher has ended"
        words, pids = manager.words(5)
        assert words == [b"READY=1", *[b"WATCHDOG=1"] * 4]
        assert pids == {process.pid}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_without_a_service_manager_nobody_is_told(tmp_path):
    (tmp_path / "node.toml").write_text("")
    done = subprocess.run(launcher(tmp_path), cwd=ROOT, env={}, capture_output=True, check=False)
    assert done.returncode == 2
