"""What a scenario and its sky say about each part of a bench: links, interfaces, settings of nodes and ground."""

from collections.abc import Container, Mapping, Sequence
from math import inf
from typing import Final

from boards import profiles
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import ConfigError
from flightsw.link.pacing import BITS_PER_BYTE
from flightsw.link.udp import udp_address
from flightsw.wire.framing import coding
from ground.fleet import FleetNode
from hil.bench import sky as sky_of
from hil.bench.member import Member
from hil.bench.pace import LTP_MARGIN_S
from hil.bench.scenario import LinkSpec, Scenario, isl_pairs
from hil.bench.sky import FIRST_NODE, GROUND_NODE, RADIO, Sky, isl_terminals
from hil.bench.workload import Workload
from hil.channel.external import ExternalNode
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.faults.injector import Injector
from hil.sim.streams import Streams

NS_PER_S: Final = 1_000_000_000
DISK_BYTES: Final = 64 * 1024 * 1024
"""Disk of a node [bytes]: real bytes of the machine that simulates, so smaller than the profile's storage."""
GROUND_DISK_BYTES: Final = 1024 * 1024 * 1024
UART_SHARE: Final = 0.8
"""Of the rate of a UART that links may plan with: records have headers and checks, and answers need room."""
EMULATED_BYTES_S: Final = 25_000.0
"""What an emulated UART moves at least, whatever its rate [bytes per s of the machine]: 25 to 42 kB/s were measured
under QEMU 7.2 on the cores of docs/boards/emulated.md."""


def link_spec(scenario: Scenario, first_node: int) -> LinkSpec:
    """The class of the link whose first end is this node."""
    spec = scenario.links.ground if first_node == GROUND_NODE else scenario.links.isl
    assert spec is not None, "a sight exists only for a class of links that the scenario has"
    return spec


def base_impairments(scenario: Scenario, link: str) -> Impairments:
    """The undisturbed impairments of a link, by its name."""
    stations = {station.name for station in scenario.stations}
    return link_spec(scenario, GROUND_NODE if link.split("/")[0] in stations else FIRST_NODE).impairments


def connect(scenario: Scenario, sky: Sky, streams: Streams, relay: Relay) -> dict[str, list[Link]]:
    """Make the links of all sights and plug them into the relay; returns the channels of each link's name."""
    by_name: dict[str, list[Link]] = {}
    links: dict[tuple[str, tuple[int, int], tuple[int, int]], Link] = {}
    for sight in sky.sights:
        key = (sight.link, sight.a, sight.b)
        if key not in links:
            antennas = by_name.setdefault(sight.link, [])
            name = sight.link if not antennas else f"{sight.link}#{len(antennas) + 1}"
            impairments = link_spec(scenario, sight.a[0]).impairments
            links[key] = Link(name, impairments, streams.child("links").random)
            antennas.append(links[key])
            relay.connect(sight.a, sight.b, links[key])
        window = sight.window
        links[key].add_window(
            round(window.start_s * NS_PER_S),
            round(window.end_s * NS_PER_S),
            [round(float(t) * NS_PER_S) for t in window.times_s],
            [float(r) for r in window.range_km],
        )
    return by_name


def interfaces(scenario: Scenario, index: int) -> tuple[InterfaceConfig, ...]:
    """Radio and laser terminals of one satellite."""
    found = [scenario.links.ground.interface(RADIO, "radio")]
    isl = scenario.links.isl
    if isl is not None:
        terminals = isl_terminals(scenario)
        mine = [terminals[pair][pair.index(index)] for pair in isl_pairs(scenario) if index in pair]
        found += [isl.interface(number, f"laser-{number}") for number in sorted(mine)]
    return tuple(found)


def ground_interfaces(scenario: Scenario, sky: Sky) -> tuple[InterfaceConfig, ...]:
    """One for each antenna."""
    return tuple(
        scenario.links.ground.interface(antenna, f"{station.name}-{antenna}")
        for station, antennas in zip(scenario.stations, sky.station_interfaces, strict=True)
        for antenna in antennas
    )


def node_config(scenario: Scenario, index: int, ltp_margin_s: float = LTP_MARGIN_S) -> NodeConfig:
    """Settings of one satellite's manager."""
    manager = scenario.manager
    return NodeConfig(
        node=FIRST_NODE + index,
        name=scenario.nodes[index].name,
        ground=GROUND_NODE,
        interfaces=interfaces(scenario, index),
        beacon_period_s=manager.beacon_period_s,
        housekeeping_period_s=manager.housekeeping_period_s,
        tick_period_s=manager.tick_period_s,
        scrub_period_s=manager.scrub_period_s,
        ltp_margin_s=ltp_margin_s,
        update_keys=manager.update_keys,
    )


def wire_ceilings(scenario: Scenario, bauds: Mapping[str, int], time_scale: float) -> dict[int, float]:
    """Node -> what its lab wire carries of each of its links [bit per mission second]: all of them share it.

    The bench paces an emulated UART at its rate in mission time; a real one keeps its rate on the machine's clock. A
    network carries what there is, but an emulated processor behind it takes no more than it takes of a UART.

    Args:
        scenario: of the run.
        bauds: node -> rate of the UART of a real board [bit/s].
        time_scale: mission seconds in a second of the machine, in which a line carries what it carries.
    """
    ceilings = {}
    for index, spec in enumerate(scenario.nodes):
        if spec.kind == "emulated":
            line_bytes_s = inf if spec.link == "mqtt" else scenario.emulation.baud / BITS_PER_BYTE
            bytes_s = min(line_bytes_s, EMULATED_BYTES_S / time_scale)
        elif spec.name in bauds:
            bytes_s = bauds[spec.name] / BITS_PER_BYTE / time_scale
        else:
            continue
        ceilings[FIRST_NODE + index] = UART_SHARE * 8 * bytes_s / len(interfaces(scenario, index))
    return ceilings


def external_node(scenario: Scenario, index: int, relay: Relay) -> ExternalNode:
    """The bench's side of a foreign node.

    Raises:
        ConfigError: an address is none, or an interface is not one of the node's.
    """
    spec = scenario.nodes[index]
    codings = {one.index: coding(one.coding) for one in interfaces(scenario, index)}
    ports = {}
    for port in spec.ports:
        where = f"node {spec.name}: port of interface {port.interface}"
        if port.interface not in codings:
            raise ConfigError(f"{where}: no such interface, expected one of {', '.join(map(str, sorted(codings)))}")
        ports[port.interface] = (
            udp_address(port.local, f"{where}: local", 0),
            udp_address(port.remote, f"{where}: remote", 1),
        )
    return ExternalNode(relay, FIRST_NODE + index, ports, codings)


def fleet(scenario: Scenario, sky: Sky) -> list[FleetNode]:
    """What the ground knows of the satellites before they speak. A foreign node computes nothing, and is not in it."""
    known = []
    for index, spec in enumerate(scenario.nodes):
        if spec.kind == "external":
            continue
        profile, config = profiles.load(spec.profile), node_config(scenario, index)
        known.append(
            FleetNode(
                node=config.node,
                name=config.name,
                mpix_per_s=profile.mpix_per_s.value,
                compute_w=profile.compute_w.value,
                idle_w=profile.idle_w.value + profile.bus_w.value,
                array_w=profile.array_w.value,
                battery_j=profile.battery_wh.value * 3600.0,
                reserve=config.reserve,
                sun=sky.sun[index],
            )
        )
    return known


def arm_faults(
    injector: Injector,
    scenario: Scenario,
    absent: Container[str],
    sky: Sky,
    members: Sequence[Member],
    workload: Workload | None,
    until_ns: int,
) -> None:
    """Set the timers of the faults and of the upsets that radiation makes along each orbit; none of absent nodes."""
    injector.arm(scenario.faults, absent)
    radiation = scenario.radiation
    if radiation is None or workload is None:
        return
    bits = workload.weight_bits_count
    for member in members:
        rate = member.profile.model_cross_section_cm2_bit.value * bits * radiation.acceleration
        steps = sky_of.flux_steps(sky, member.config.node - FIRST_NODE, 0.0, until_ns / NS_PER_S)
        injector.arm_upsets(member.config.name, steps, sky.step_s, rate)
