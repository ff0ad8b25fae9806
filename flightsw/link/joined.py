"""Several wires as one: each interface on the wire that it belongs to."""

from collections.abc import Mapping, Sequence

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, LinkClosed
from flightsw.link.udp import UdpLink, UdpPort, UdpSettings
from flightsw.link.urls import parse_url
from flightsw.ports import Frame, FrameReceiver, Link
from flightsw.wire.datagrams import LTP_UDP


class JoinedLink:
    """A lab wire, and further wires for some interfaces, for example UDP to a neighbour of another implementation.

    Implements `flightsw.ports.Link`.

    Args:
        link: for all interfaces that have no wire of their own.
        others: wires by interface.
    """

    def __init__(self, link: Link, others: Mapping[int, Link]) -> None:
        self._link = link
        self._others = others
        self._is_closed = False

    def send(self, interface: int, frame: Frame) -> None:
        """Hand over one coded frame.

        Raises:
            LinkError: the wire of that interface does not take it.
        """
        if self._is_closed:
            raise LinkClosed("joined link: send after close")
        self._others.get(interface, self._link).send(interface, frame)

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving frames, whatever wire they come on."""
        for link in self._links():
            link.set_receiver(receiver)

    async def close(self) -> None:
        """Give all wires back."""
        self._is_closed = True
        for link in self._links():
            await link.close()

    def _links(self) -> list[Link]:
        links = [self._link]
        links += [link for link in self._others.values() if all(link is not known for known in links)]
        return links


async def join_neighbours(link: Link, urls: Sequence[str], interfaces: Sequence[InterfaceConfig]) -> Link:
    """A lab wire with UDP to neighbours of other implementations; each of their interfaces has a URL.

    Args:
        link: the lab wire.
        urls: `udp://` URLs, with the interface that each is for.
        interfaces: of the node: on UDP their coding is `ltp-udp`, elsewhere another.

    Raises:
        ConfigError: a URL is wrong, or an interface has the wrong coding for its wire.
        LinkBroken: an address cannot be bound.
    """
    ports: dict[int, UdpPort] = {}
    for url in urls:
        settings = parse_url(url)
        if not isinstance(settings, UdpSettings):
            raise ConfigError(f"link: neighbour {url.partition(':')[0]!r}, expected a udp:// URL")
        for interface, port in settings.ports.items():
            if interface in ports:
                raise ConfigError(f"link: two neighbours on interface {interface}, expected an interface for each")
            ports[interface] = port
    udp = UdpLink(ports)
    udp.check(interfaces)
    if isinstance(link, UdpLink):
        link.check(interfaces)
    else:
        for one in interfaces:
            if one.coding == LTP_UDP.name and one.index not in ports:
                raise ConfigError(f"interface {one.name!r}: coding {one.coding!r}, expected a neighbour on UDP for it")
    if not ports:
        return link
    await udp.open()
    return JoinedLink(link, dict.fromkeys(ports, udp))
