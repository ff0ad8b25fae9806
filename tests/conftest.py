"""In CI, a test that skips because a tool is missing fails the session: what CI needs, `.ci/run` installs."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

MISSING = "missing tool: "
"""How the reason of such a skip begins."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    for report in reporter.stats.get("skipped", []):
        if MISSING in str(report.longrepr):
            reporter.write_line(f"\nskipped in CI: {report.nodeid}: {report.longrepr}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def peer_python() -> Callable[[str], Path]:
    """Gives the interpreter of a peer's own environment (`scripts/peer_environment.py`), made on first use."""
    script = Path(__file__).resolve().parent.parent / "scripts" / "peer_environment.py"
    spec = importlib.util.spec_from_file_location("peer_environment", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def find(name: str) -> Path:
        try:
            return module.interpreter(name)
        except module.PeerUnavailable as error:
            pytest.skip(f"{MISSING}{error}")

    return find


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """Gives the path of a program, or skips the test with the reason."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"{MISSING}{name}")
        return path

    return find
