"""The null modem: what goes in at one end comes out at the other, and nothing is left behind."""

import os
import select
import signal
import subprocess
import sys

import pytest

PATIENCE_S = 60.0


@pytest.fixture
def ends(tmp_path):
    """A running null modem: its process and the names of its ends."""
    names = tmp_path / "a", tmp_path / "b"
    process = subprocess.Popen(
        [sys.executable, "-m", "hil.cli", "null-modem", *map(str, names)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == f"{names[0]} and {names[1]} are joined; Ctrl-C ends it\n".encode()
    yield process, *names
    process.kill()
    process.communicate()


def opened(path):
    return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def exchange(source, target, data):
    """Write all of it, read as much."""
    rest, got = memoryview(data), bytearray()
    while len(got) < len(data):
        readable, writable, _ = select.select([target], [source] if rest else [], [], PATIENCE_S)
        assert readable or writable, f"stuck after {len(got)} bytes"
        if writable:
            rest = rest[os.write(source, rest[:4096]) :]
        if readable:
            got += os.read(target, 4096)
    return bytes(got)


def test_every_byte_passes_both_ways_in_order(ends):
    _, *paths = ends
    near, far = map(opened, paths)
    data = bytes(range(256)) * 2000
    try:
        assert exchange(near, far, data) == data
        assert exchange(far, near, data[::-1]) == data[::-1]
    finally:
        os.close(near)
        os.close(far)


def test_an_end_may_be_closed_and_opened_again(ends):
    _, *paths = ends
    far = opened(paths[1])
    for word in (b"first", b"second"):
        near = opened(paths[0])
        assert exchange(near, far, word) == word
        os.close(near)
    os.close(far)


def test_a_sender_waits_when_nobody_reads_and_loses_nothing(ends):
    _, *paths = ends
    near, far = map(opened, paths)
    sent = 0
    try:
        while select.select([], [near], [], 0.5)[1]:
            sent += os.write(near, b"x" * 4096)
        assert sent < 1_000_000
        got = 0
        while got < sent:
            assert select.select([far], [], [], PATIENCE_S)[0]
            got += len(os.read(far, 65_536))
        assert got == sent
    finally:
        os.close(near)
        os.close(far)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order_and_takes_its_names_away(ends, number):
    process, *paths = ends
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 0
    assert not any(path.is_symlink() for path in paths)


def test_a_name_that_is_taken_is_refused_and_stays(tmp_path):
    (tmp_path / "b").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "hil.cli", "null-modem", str(tmp_path / "a"), str(tmp_path / "b")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flatrack: null-modem: {tmp_path}/b: File exists, expected a name that is free\n"
    assert (tmp_path / "b").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()
