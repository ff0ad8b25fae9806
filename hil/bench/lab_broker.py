"""The broker of a run: where it listens, and how each board reaches it.

| who | reaches a broker that the bench starts | reaches one that runs already |
|---|---|---|
| bench, processes | on loopback, or at the address of `boards.bench` | by its URL |
| emulated board | the same; loopback is 10.0.2.2 there | the same |
| real board | at the address of `boards.bench` | by its URL, or by `boards.broker` where that differs |

The bench's own broker listens on loopback alone, and asks nobody who they are, as long as no real board needs it. Else
it listens at the one address of this machine that `boards.bench` names, and wants a password that is drawn for the run.

An emulated board has an address of IPv4 and no resolver: it is told addresses. Of this machine's loopback it reaches
127.0.0.1.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from flightsw.errors import ConfigError
from flightsw.host.control import parse_address
from flightsw.link.mqtt_session import MqttSettings
from hil.bench.board_addresses import IPV4_LOOPBACK, addresses, is_loopback, lab_settings
from hil.bench.kinds import OWN_BOARD_KINDS
from hil.bench.scenario import NodeSpec, Scenario
from hil.broker import Broker
from hil.broker_programs import HOST

EMULATED_HOST: Final = "10.0.2.2"
"""127.0.0.1 of this machine, as the network of QEMU shows it to a board (`-netdev user`)."""
USER: Final = "flatrack"
"""Whom a broker lets in that the bench starts for real boards."""
PASSWORD_BYTES: Final = 16
"""Nobody guesses 128 bits during a run."""


def start_broker(scenario: Scenario, kind: str, report: Callable[[str], None]) -> Broker:
    """The broker of a run, not entered yet.

    Args:
        scenario: what runs.
        kind: `nats`, `mosquitto`, or the URL of a broker that runs already.
        report: takes a line when it died and was started again.

    Raises:
        ConfigError: no such kind.
    """
    host = _own_host(scenario)
    if "://" in kind or is_loopback(host):
        return Broker.start(kind, report=report)
    secret = os.urandom(PASSWORD_BYTES)  # noqa: TID251 - a secret must not follow from the run's seed
    return Broker.start(kind, host=host, user=(USER, secret.hex()), report=report)


def check_broker(scenario: Scenario, kind: str) -> None:
    """Check that the broker of a run is one for lab wires, and that the boards on MQTT can reach it.

    Args:
        scenario: what is to run.
        kind: `nats`, `mosquitto`, or the URL of a broker that runs already.

    Raises:
        ConfigError: names the node, what it would need, and where that is set.
    """
    boards = scenario.boards
    if "://" in kind and any(spec.link == "mqtt" for spec in scenario.nodes):
        lab_settings(kind, "bench")
    for spec in scenario.nodes:
        if spec.link != "mqtt" or spec.kind not in OWN_BOARD_KINDS:
            continue
        where = f"{scenario.name}: node {spec.name}: link 'mqtt'"
        if "://" in kind:
            url_on_board(scenario, spec, kind)
        elif spec.kind == "board" and boards.broker:
            raise ConfigError(
                f"{where}: boards.broker is that of a broker that runs already, expected --broker with its URL as this "
                f"machine reaches it, not {kind}"
            )
        elif spec.kind == "board" and not boards.bench:
            raise ConfigError(
                f"{where} of a board, expected boards.bench = 'tcp://host:port', where boards reach this machine and "
                "its broker, or --broker with the URL of one that they reach"
            )


def url_on_board(scenario: Scenario, spec: NodeSpec, url: str) -> str:
    """What a board opens its end of the lab wire with. Holds the password if the broker wants one.

    Args:
        scenario: what runs.
        spec: the node.
        url: of the broker, as the bench reaches it.

    Raises:
        ConfigError: the board cannot reach a broker of this URL, or a part of it is wrong.
    """
    ours = lab_settings(url, spec.name)
    user, password = ours.login()  # from a file of this machine, where there is one
    if spec.kind == "board" and scenario.boards.broker:
        theirs = lab_settings(scenario.boards.broker, spec.name, ours.prefix)
        if theirs.prefix != ours.prefix:
            raise ConfigError(
                f"{scenario.name}: boards.broker: prefix {theirs.prefix!r}, expected {ours.prefix!r}, as in the URL of "
                "--broker, or none"
            )
        has_login = bool(theirs.userfile)
    else:
        theirs, has_login = replace(ours, servers=_servers_on_board(scenario, spec, ours)), False
    if user is not None and password is not None and not has_login:
        theirs = replace(theirs, username=user, password=password, userfile="")
    return theirs.url(spec.name)


def _servers_on_board(scenario: Scenario, spec: NodeSpec, ours: MqttSettings) -> tuple[tuple[str, int], ...]:
    """The same servers, as a board reaches them. Raises: ConfigError: it cannot."""
    where = f"{scenario.name}: node {spec.name}: broker {ours.servers[0][0]}"
    if ours.tls is not None and (ours.tls.cafile or ours.tls.certfile):
        raise ConfigError(
            f"{where}: its URL names files of this machine, which the board has not, expected "
            + ("none" if spec.kind == "emulated" else "boards.broker = 'mqtts://...' with the board's own")
        )
    if spec.kind == "emulated":
        servers = tuple((_host_on_emulated(where, host), port) for host, port in ours.servers)
        if ours.tls is not None and servers != ours.servers:
            raise ConfigError(
                f"{where}: an emulated board reaches it as {servers[0][0]}, which its certificate does not name, "
                "expected mqtt://, or an address that the certificate names"
            )
        return servers
    if any(is_loopback(host) for host, _ in ours.servers) and not is_loopback(_bench_host(scenario)):
        raise ConfigError(
            f"{where}: is reached from this machine alone, expected boards.broker = 'mqtt://host:port', as boards "
            "reach it"
        )
    return ours.servers


def _host_on_emulated(where: str, host: str) -> str:
    """A host, as an emulated board reaches it. Raises: ConfigError: it cannot."""
    if host == "localhost":
        return EMULATED_HOST
    try:
        address = addresses(host, socket.AF_INET)[0]
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error}, expected an address of IPv4, or a name that this machine resolves to one: an emulated "
            "board has no other, and no resolver"
        ) from None
    if address == IPV4_LOOPBACK:
        return EMULATED_HOST
    if is_loopback(str(address)) or address.is_unspecified:
        raise ConfigError(
            f"{where}: {address} is not reached from an emulated board, expected 127.0.0.1, or an address of a network"
        )
    return str(address)


def _own_host(scenario: Scenario) -> str:
    """Where a broker that the bench starts listens."""
    has_board = any(node.link == "mqtt" and node.kind == "board" for node in scenario.nodes)
    return _bench_host(scenario) if has_board else HOST


def _bench_host(scenario: Scenario) -> str:
    """Where boards reach this machine; empty where they do not."""
    return parse_address(scenario.boards.bench)[0] if scenario.boards.bench else ""
