"""URLs of bearers.

```text
serial:///dev/ttyUSB0?baud=921600                           a UART or a pseudo-terminal
socket://host:port?baud=921600                              a network serial server, raw TCP; also serial+socket://
mqtt://[user:password@]host:port[,host:port]/prefix?client=sat-03&qos=1
mqtts://…/prefix?client=sat-03&cafile=ca.pem                the same with TLS
udp://0.0.0.0:1113?peer=192.0.2.7:1113&interface=1          LTP over UDP to a node of another implementation
```
"""

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from flightsw.errors import ConfigError
from flightsw.link.mqtt import MqttLink
from flightsw.link.mqtt_session import MqttSettings, TlsSettings
from flightsw.link.serial import SerialLink, SerialSettings
from flightsw.link.udp import UdpLink, UdpSettings, udp_settings

BAUD_MIN: Final = 50
BAUD_MAX: Final = 12_000_000
"""Rates of serial lines [bit/s]: from the slowest that termios knows to the fastest of USB converters."""

KEEPALIVE_S_MIN: Final = 1
KEEPALIVE_S_MAX: Final = 3600
"""Silence after which a broker gives a client up, as MQTT counts it [s]: a whole second at least; within the hour."""

NAME_CHARACTERS_MAX: Final = 64
"""Longest name of a client, and of each level of a prefix: together with the rest well below MQTT's 65,535 bytes."""

MQTT_PORT: Final = 1883
MQTTS_PORT: Final = 8883

_NAME: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARACTERS_MAX}}}")
_NAME_RULE: Final = f"letters, digits, - and _, at most {NAME_CHARACTERS_MAX}"
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)(?::([0-9]{1,5}))?")
_NOT_SHOWN: Final = "(not shown: a / ? or # before the @ is written %2F %3F %23, and this may be a password)"
_SCHEMES: Final = ("serial", "socket", "serial+socket", "mqtt", "mqtts", "udp")

Settings = SerialSettings | MqttSettings | UdpSettings


def parse_url(url: str, *, client: str = "") -> Settings:
    """The settings that a URL describes.

    Args:
        url: see above.
        client: name of an MQTT client whose URL has none.

    Raises:
        ConfigError: a part is wrong; names it, its value (but never a password) and what was expected.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES or "://" not in url:
        word = re.split("[^a-z+]", scheme)[0]  # what follows may hold a password: a slash is soon forgotten
        raise ConfigError(f"link: scheme {word[:20]!r}, expected one of {', '.join(f'{one}://' for one in _SCHEMES)}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"link {scheme}: {error}") from None
    if parts.fragment:
        raise ConfigError(f"link {scheme}: a fragment, expected none: # is written %23, also in a password")
    if scheme == "serial":
        return _serial(parts)
    if scheme in ("socket", "serial+socket"):
        return _socket(parts)
    if scheme == "udp":
        return udp_settings(parts)
    return _mqtt(parts, client)


async def open_link(url: str, *, node: int | None = None) -> SerialLink | MqttLink | UdpLink:
    """Open the node's end of a lab wire.

    Returns when the first attempt to reach device or broker has ended, either way: a wire that is not there yet is
    looked for until `close`; `status()` tells, and `wait_connected()` waits.

    Args:
        url: see above.
        node: names the client of an MQTT URL that does not, as `node-<node>`.

    Raises:
        ConfigError: the URL, or a file that it names, is wrong.
        LinkBroken: a UDP address cannot be bound.
    """
    settings = parse_url(url, client="" if node is None else f"node-{node}")
    link: SerialLink | MqttLink | UdpLink
    if isinstance(settings, UdpSettings):
        link = UdpLink(settings.ports)
    else:
        link = SerialLink(settings) if isinstance(settings, SerialSettings) else MqttLink(settings)
    await link.open()
    return link


def _serial(parts: SplitResult) -> SerialSettings:
    options = _options(parts, ("baud",))
    if parts.netloc:
        raise ConfigError(f"link serial: host {parts.hostname!r}, expected none: serial:///dev/... has three slashes")
    path = unquote(parts.path)
    if len(path) < 2:
        raise ConfigError(f"link serial: device {path!r}, expected a path such as /dev/ttyUSB0")
    return SerialSettings(path=path, baud=_baud(options))


def _socket(parts: SplitResult) -> SerialSettings:
    options = _options(parts, ("baud",))
    if parts.path not in ("", "/"):
        raise ConfigError(f"link {parts.scheme}: path {parts.path!r}, expected none after host:port")
    if "@" in parts.netloc:
        raise ConfigError(f"link {parts.scheme}: a user, expected host:port alone: raw TCP has no login")
    host, port = _server(parts.scheme, parts.netloc, None)
    return SerialSettings(host=host, port=port, baud=_baud(options))


def _mqtt(parts: SplitResult, client: str) -> MqttSettings:
    scheme = parts.scheme
    tls_names = ("cafile", "certfile", "keyfile")
    options = _options(parts, ("client", "qos", "keepalive", "userfile", *(tls_names if scheme == "mqtts" else ())))
    user_part, at, servers_part = parts.netloc.rpartition("@")
    username, colon, password = user_part.partition(":")
    if at and (not username or not colon):
        raise ConfigError(f"link {scheme}: user, expected user:password@ before the servers")
    if at and "userfile" in options:
        raise ConfigError(f"link {scheme}: userfile, expected either it or user:password@")
    default_port = MQTTS_PORT if scheme == "mqtts" else MQTT_PORT
    servers = tuple(_server(scheme, one, default_port) for one in servers_part.split(","))
    prefix = unquote(parts.path).strip("/")
    if not prefix or not all(_NAME.fullmatch(level) for level in prefix.split("/")):
        shown = repr(prefix) if "@" not in prefix else _NOT_SHOWN
        raise ConfigError(f"link {scheme}: prefix {shown}, expected levels of {_NAME_RULE}, joined by /")
    client = options.get("client", client)
    if not _NAME.fullmatch(client):
        raise ConfigError(f"link {scheme}: client {client!r}, expected {_NAME_RULE}")
    if options.get("keyfile") and not options.get("certfile"):
        raise ConfigError(f"link {scheme}: keyfile, expected certfile as well")
    tls = TlsSettings(*(options.get(name, "") for name in tls_names)) if scheme == "mqtts" else None
    return MqttSettings(
        servers=servers,
        prefix=prefix,
        client=client,
        qos=_number(scheme, options, "qos", 0, 0, 1),
        username=unquote(username),
        password=unquote(password),
        userfile=options.get("userfile", ""),
        tls=tls,
        keepalive_s=_number(scheme, options, "keepalive", 15, KEEPALIVE_S_MIN, KEEPALIVE_S_MAX),
    )


def _options(parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    """Options after the question mark, each known and named once."""
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(f"link {parts.scheme}: options, expected name=value joined by &") from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            shown = repr(name) if "@" not in parts.query else _NOT_SHOWN
            raise ConfigError(f"link {parts.scheme}: option {shown}, expected one of {', '.join(known)}")
        if name in options:
            raise ConfigError(f"link {parts.scheme}: option {name!r} twice, expected once")
        if not value:
            raise ConfigError(f"link {parts.scheme}: option {name!r} without value, expected {name}=...")
        options[name] = value
    return options


def _baud(options: dict[str, str]) -> int:
    return 0 if options.get("baud") == "0" else _number("serial", options, "baud", 0, BAUD_MIN, BAUD_MAX)


def _number(scheme: str, options: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ConfigError(f"link {scheme}: {name} {text!r}, expected a whole number from {least} to {most}")
    return int(text)


def _server(scheme: str, text: str, default_port: int | None) -> tuple[str, int]:
    """(host, port) of `host:port` or `[IPv6 address]:port`."""
    match = _SERVER.fullmatch(text)
    if match is None or (match[2] is None and default_port is None):
        raise ConfigError(f"link {scheme}: server {text.partition(':')[0]!r}..., expected host:port")
    port = int(match[2]) if match[2] else default_port
    assert port is not None, "the pattern asked for a port"
    if not 1 <= port <= 65_535:
        raise ConfigError(f"link {scheme}: port {port}, expected 1 to 65535")
    return match[1].strip("[]"), port
