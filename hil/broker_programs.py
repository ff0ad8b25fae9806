"""Commands and configuration of the brokers that the bench can start: nats-server and mosquitto.

Layouts: NATS server configuration (docs.nats.io, Configuring NATS Server, MQTT) and mosquitto.conf(5).
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError

KINDS: Final = ("nats", "mosquitto")
HOST: Final = "127.0.0.1"
"""Where a broker listens that only this machine needs."""

QUEUED_MESSAGES_MAX: Final = 100_000
"""Messages that mosquitto keeps for one client: a minute away at 1,600 frames a second; its own default of 1,000 is
less than one object."""

_ROOT: Final = 0
_SYSTEM_FOLDERS: Final = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where distributions put servers, and where PATH of a user often does not look."""


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """A broker's certificate, its key, and the authority that clients check it by; all in PEM."""

    certfile: Path
    keyfile: Path
    cafile: Path
    client_certfile: Path | None = None
    """Certificate with key that our clients show; when there is one, the broker asks every client for one of the same
    authority."""


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """What one server is to be."""

    folder: Path
    """Its own: configuration, store, log."""
    index: int
    port: int
    """Where it takes MQTT clients."""
    tls: BrokerTls | None
    user: tuple[str, str] | None
    """(name, password) that clients must give."""
    cluster_ports: tuple[int, ...] = ()
    """Where the servers of its cluster talk to each other, in their order; empty without a cluster."""
    host: str = HOST
    """Where it takes MQTT clients: an address of this machine."""


@dataclass(frozen=True, slots=True)
class Program:
    """One server: its command, where it listens, and where it writes its log."""

    command: tuple[str, ...]
    port: int
    log: Path


def make_program(kind: str, plan: ServerPlan) -> Program:
    """Write a server's configuration.

    Raises:
        ConfigError: the program is not there.
    """
    plan.folder.mkdir(mode=0o700)
    return (_nats if kind == "nats" else _mosquitto)(plan)


def find_program(name: str, advice: str) -> str:
    """Path of a program beside the running interpreter, on PATH or among the system's servers.

    Raises:
        ConfigError: it is nowhere.
    """
    beside = str(Path(sys.executable).parent)
    for folders in (beside, None, _SYSTEM_FOLDERS):
        path = shutil.which(name, path=folders)
        if path is not None:
            return path
    raise ConfigError(f"broker: {name} was not found beside {sys.executable} nor on PATH; {advice}")


def _nats(plan: ServerPlan) -> Program:
    program = find_program("nats-server", "expected after: pip install 'flatrack[broker]'")
    mqtt: dict[str, object] = {"host": plan.host, "port": plan.port}
    if plan.tls is not None:
        tls: dict[str, object] = {
            "cert_file": str(plan.tls.certfile.resolve()),
            "key_file": str(plan.tls.keyfile.resolve()),
        }
        if plan.tls.client_certfile is not None:
            tls |= {"ca_file": str(plan.tls.cafile.resolve()), "verify": True}
        mqtt["tls"] = tls
    settings: dict[str, object] = {
        "server_name": f"flatrack-{plan.index}",
        "host": HOST,
        "port": -1,  # its own protocol, which nobody uses here: any free port
        "jetstream": {"store_dir": str(plan.folder / "store")},
        "mqtt": mqtt,
    }
    if plan.user is not None:
        settings["authorization"] = {"user": plan.user[0], "password": plan.user[1]}
    if plan.cluster_ports:
        routes = [f"nats://{HOST}:{port}" for index, port in enumerate(plan.cluster_ports) if index != plan.index]
        settings["cluster"] = {
            "name": "flatrack",
            "host": HOST,
            "port": plan.cluster_ports[plan.index],
            "routes": routes,
        }
        mqtt["stream_replicas"] = 3
    path = plan.folder / "nats.conf"
    _write_private(path, json.dumps(settings, indent=1, ensure_ascii=False))  # it reads JSON, but for \u escapes
    return Program((program, "--config", str(path)), plan.port, plan.folder / "log")


def _mosquitto(plan: ServerPlan) -> Program:
    program = find_program("mosquitto", "expected after: apt-get install mosquitto")
    store = plan.folder / "store"
    store.mkdir(mode=0o700)
    lines = [
        f"listener {plan.port} {plan.host}",
        f"allow_anonymous {'true' if plan.user is None else 'false'}",
        "persistence true",
        f"persistence_location {store}/",
        "autosave_interval 1",
        f"max_queued_messages {QUEUED_MESSAGES_MAX}",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == _ROOT:
        lines.append(f"user {pwd.getpwuid(_ROOT).pw_name}")  # else it becomes a user who may not read our folder
    if plan.tls is not None:
        lines += [f"certfile {plan.tls.certfile.resolve()}", f"keyfile {plan.tls.keyfile.resolve()}"]
        if plan.tls.client_certfile is not None:
            lines += [f"cafile {plan.tls.cafile.resolve()}", "require_certificate true"]
    if plan.user is not None:
        passwords = plan.folder / "passwords"
        hashing = find_program("mosquitto_passwd", "expected after: apt-get install mosquitto")
        done = subprocess.run(
            [hashing, "-c", str(passwords), plan.user[0]],
            input=2 * f"{plan.user[1]}\n",  # it asks twice; an argument would be seen by every user of the machine
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise ConfigError(f"broker mosquitto: mosquitto_passwd failed: {done.stderr.strip()}")
        lines.append(f"password_file {passwords}")
    path = plan.folder / "mosquitto.conf"
    _write_private(path, "\n".join(lines) + "\n")
    return Program((program, "-c", str(path)), plan.port, plan.folder / "log")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
