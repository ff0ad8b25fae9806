"""In CI, a test that skips because a tool is missing fails the session: what CI needs, `.ci/run` installs."""

import os

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
