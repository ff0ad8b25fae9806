"""In CI, a test that skips because a tool is missing fails the session: what CI needs, `.ci/run` installs."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from hil.broker_programs import BrokerTls

hypothesis.settings.register_profile("flatrack", deadline=None)  # no test asserts a duration
hypothesis.settings.load_profile("flatrack")

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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> BrokerTls:
    """An authority, a certificate of 127.0.0.1 and one of a client, made by openssl as docs/links.md says."""
    openssl, folder = need_tool("openssl"), tmp_path_factory.mktemp("certificates")

    def make(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, capture_output=True, check=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    make("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=lab authority")
    for name, alternative in (("broker", "IP:127.0.0.1"), ("client", "DNS:client")):
        make("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text(f"subjectAltName={alternative}\n")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        make("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    both = folder / "client-both.pem"
    both.write_text((folder / "client.pem").read_text() + (folder / "client.key").read_text())
    return BrokerTls(folder / "broker.pem", folder / "broker.key", folder / "ca.pem")
