"""Where boards reach the bench and the broker of a run: what addresses and URLs may say, and what they mean here."""

import ipaddress
import socket
from typing import Final

from flightsw.errors import ConfigError
from flightsw.host.control import parse_address
from flightsw.link.mqtt_session import MqttSettings
from hil.channel.wires import broker_settings

MQTT_PREFIX: Final = "flatrack"
"""First level of the topics of a bench, where the broker's URL has no prefix."""
IPV4_LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def addresses(host: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Address]:
    """What this machine takes a host for: an address for itself, a name for those that it resolves to.

    Raises:
        ConfigError: it is none of this family.
    """
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a level of the name is too long
        raise ConfigError(f"host {host!r}: {getattr(error, 'strerror', None) or error}") from None
    return [_plain(ipaddress.ip_address(str(address[0]))) for *_, address in found]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone. A name that this machine does not know is not."""
    try:
        return all(address.is_loopback for address in addresses(host))
    except ConfigError:
        return False


def check_bench(url: str) -> None:
    """Check `boards.bench`. Raises: ConfigError: it is no `tcp://host:port`, or all addresses at once."""
    host, _ = parse_address(url)
    try:  # without a look at names
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return
    if any(_plain(ipaddress.ip_address(str(address[0]))).is_unspecified for *_, address in found):
        raise ConfigError(f"{url!r} is every address, expected the one of this machine under which the boards reach it")


def check_broker_of_boards(url: str) -> None:
    """Check `boards.broker`. Raises: ConfigError: it is none of a broker for lab wires, or holds a password."""
    settings = lab_settings(url, "board")
    if settings.username:
        raise ConfigError(
            "has user:password@, which run.json would keep, expected a login in the userfile of --broker, or "
            "?userfile=FILE of the boards"
        )


def lab_settings(url: str, client: str, prefix: str = MQTT_PREFIX) -> MqttSettings:
    """What the URL of a broker says to lab wires.

    Args:
        url: of the broker or brokers.
        client: name of the client, if the URL has none.
        prefix: of all topics, if the URL has none.

    Raises:
        ConfigError: the URL is wrong, none of a broker, or asks for another quality of service than 0.
    """
    path = url.partition("?")[0].partition("://")[2].partition("/")[2]
    settings = broker_settings(url, "" if path.strip("/") else prefix, client)
    if settings.qos:
        raise ConfigError(
            f"broker: qos {settings.qos}, expected 0 for lab wires: a broker would keep frames for nodes without power"
        )
    return settings


def _plain(address: Address) -> Address:
    """An address of IPv4 that is written as one of IPv6, as what it is."""
    return getattr(address, "ipv4_mapped", None) or address
