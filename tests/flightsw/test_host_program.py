"""What programs have in common: how they end, and that none outlives its parent."""

import asyncio
import os
import select
import subprocess
import sys
import time  # noqa: TID251 - the loop needs the present instant

import pytest

from flightsw.errors import ConfigError, StorageError
from flightsw.host.loop import PacedLoop
from flightsw.host.program import Exit, run

PATIENCE_S = 60.0


def run_composed(compose):
    return run("test", PacedLoop(time.time_ns()), compose)


def test_the_first_who_tells_a_program_to_end_decides():
    async def compose(ending):
        ending.tell(Exit.RESET)
        ending.tell(Exit.STOPPED)
        ending.fail(AssertionError("too late"))
        return ending.wait

    assert run_composed(compose) == 3


def test_what_goes_wrong_in_composing_is_one_line_and_code_2(capsys):
    async def compose(ending):
        raise ConfigError("node.toml: node.name = 7: Expected `str`, got `int`")

    assert run_composed(compose) == 2
    assert capsys.readouterr().err == "test: node.toml: node.name = 7: Expected `str`, got `int`\n"


def test_what_goes_wrong_later_is_a_crash():
    async def compose(ending):
        async def runs():
            raise StorageError("disk full")

        return runs

    with pytest.raises(StorageError, match="disk full"):
        run_composed(compose)


def test_an_error_that_is_told_is_a_crash_and_what_was_begun_is_ended():
    ended = []

    async def compose(ending):
        async def runs():
            asyncio.get_running_loop().call_soon(ending.fail, AssertionError("planted"))
            try:
                return await ending.wait()
            finally:
                ended.append(True)

        return runs

    with pytest.raises(AssertionError, match="planted"):
        run_composed(compose)
    assert ended == [True]


def test_a_signal_ends_a_program_in_order():
    async def compose(ending):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), 15)
        return ending.wait

    assert run_composed(compose) == 0


CHILD = "import time; from flightsw.host.program import end_with_parent; end_with_parent(); print(); time.sleep(1e6)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(1e6)
"""


def test_the_kernel_ends_a_program_whose_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    number = int(parent.stdout.readline())
    child = os.pidfd_open(number)
    try:
        parent.kill()
        parent.communicate()
        ended, _, _ = select.select([child], [], [], PATIENCE_S)
        if not ended:
            os.kill(number, 9)
        assert ended, "the child lives on"
    finally:
        os.close(child)
