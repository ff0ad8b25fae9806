"""The scenario file: fleet + links + workload + faults + expectations, in TOML.

Every field is typed and bounded here; what is wrong is reported with file, field and expectation. Shipped scenarios lie
in `hil/scenarios`; a path to a user's own file works wherever a name does.
"""

import datetime
import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from flightsw.config import InterfaceConfig, NonNegative, Positive, Share, UpdateKey, load_toml
from flightsw.errors import ConfigError, FrameError
from flightsw.link.urls import BAUD_MAX, BAUD_MIN
from flightsw.net.terminals import SEGMENT_HEADER_BYTES_MAX
from flightsw.wire.framing import CobsCrc32c, coding
from hil.bench.board_addresses import check_bench, check_broker_of_boards
from hil.bench.kinds import LAB_KINDS, OWN_BOARD_KINDS, REAL_TIME_KINDS, Kind, needs_door, objection
from hil.bench.orbit_specs import ElementsOrbit as ElementsOrbit
from hil.bench.orbit_specs import RingOrbit as RingOrbit
from hil.bench.orbit_specs import TableOrbit as TableOrbit
from hil.bench.orbit_specs import WalkerOrbit as WalkerOrbit
from hil.channel.impairments import Impairments
from hil.faults.plan import Fault
from hil.world.contacts import plus_grid_pairs, ring_pairs

NodeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
NS_PER_S = 1_000_000_000
Wire = Literal["", "serial", "mqtt"]


class PortSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The UDP port behind one interface of a foreign node: one LTP segment in each datagram."""

    interface: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    local: str
    """Where the bench listens, `host:port`."""
    remote: str
    """Where the foreign node listens, `host:port`."""


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One node of the fleet."""

    name: NodeName
    profile: str = ""
    """Name of a shipped board profile, or path of a TOML file; not of an external node."""
    kind: Kind = "simulated"
    """`simulated`: a coroutine of the bench. The others run in real time. `process`: a program of its own. `emulated`:
    an arm64 board under QEMU. `board`: a real one, of an inventory. `external`: a foreign node behind UDP ports."""
    link: Wire = ""
    """Lab wire of a process or a board: `mqtt`, a broker; `serial`, the default, a pseudo-terminal or the UART."""
    board: str = ""
    """Of a real board: its name in the inventory; the node's name without."""
    initial_charge: Share = 0.9
    ports: tuple[PortSpec, ...] = ()
    """Of an external node."""


class StationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ground station."""

    name: NodeName
    latitude_deg: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude_deg: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    altitude_m: Annotated[float, msgspec.Meta(ge=-500, le=9000)] = 0.0
    min_elevation_deg: Annotated[float, msgspec.Meta(ge=0, le=90)] = 5.0
    antennas: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    source: str = ""


class LinkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A class of links."""

    impairments: Impairments
    segment_bytes: Annotated[int, msgspec.Meta(ge=64, le=60_000)] = 1024
    queue_bundles_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
    """Bundles that may wait for a neighbour; more displace the least urgent, counted."""
    coding: str = CobsCrc32c.name
    """Of the frames of both ends: a name of `flightsw.wire.framing`."""
    range_km_max: Positive = 6000.0

    def interface(self, index: int, name: str) -> InterfaceConfig:
        """An end of a link of this class."""
        return InterfaceConfig(
            index=index,
            name=name,
            coding=self.coding,
            segment_bytes=self.segment_bytes,
            queue_bundles_max=self.queue_bundles_max,
        )


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The links of a fleet."""

    ground: LinkSpec
    isl: LinkSpec | None = None
    topology: Literal["none", "ring", "plus_grid"] = "ring"


class CloudMaskWorkload(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="cloud_mask", tag_field="kind"
):
    """Tiles of a scene, one cloud-mask job each."""

    scene: str = "sentinel2-scene.npz"
    """Shipped scene, or path of the user's."""
    model: str = "cloud-mask.onnx"
    """Shipped model, or path of the user's."""
    covers: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=64)]
    """Cloud cover laid over each acquisition of the scene."""
    tile_px: Annotated[int, msgspec.Meta(ge=16, le=1024, multiple_of=4)] = 48
    step_mpix: Positive
    """Work that one step of a job is charged for [Mpixel]."""
    priority: Annotated[int, msgspec.Meta(ge=0, le=7)] = 4
    deadline_s: Annotated[int, msgspec.Meta(ge=1)]
    checkpoint_steps: Annotated[int, msgspec.Meta(ge=1)] = 2
    product_cover_max: Share = 0.7
    """A tile cloudier than this need not come down."""
    submit_at_s: NonNegative = 30.0
    submit_spacing_s: NonNegative = 0.0


class Radiation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Upsets of weights in memory by trapped protons, along the orbit."""

    solar: Literal["min", "max"] = "min"
    energy_mev: Literal[10, 30, 50] = 30
    acceleration: NonNegative = 1.0
    """Multiplies the upset rate so that a short run sees upsets; printed in the summary."""


class Manager(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the on-board managers; the defaults are those of `flightsw.config.NodeConfig`."""

    beacon_period_s: Positive = 10.0
    housekeeping_period_s: Positive = 60.0
    tick_period_s: Positive = 10.0
    scrub_period_s: Positive = 60.0
    update_keys: tuple[UpdateKey, ...] = ()
    """Public keys whose software the nodes take (docs/update.md)."""


class Emulation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The machines of emulated nodes."""

    image: str = ""
    """Folder of an image (`flatrack board image`); empty: one is built on first use and kept for later runs."""
    ram_mib: Annotated[int, msgspec.Meta(ge=128, le=8192)] | None = None
    """Memory of each machine [MiB]; without, that of the image's snapshot."""
    baud: Annotated[int, msgspec.Meta(ge=BAUD_MIN, le=BAUD_MAX)] = 115_200
    """Rate of their UARTs, which the bench keeps [bit/s]. All links of a node share it."""


class Boards(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The real boards of a fleet."""

    inventory: str = "boards.toml"
    """File of the inventory; the path is relative to the scenario's."""
    missing: Literal["refuse", "continue"] = "refuse"
    """What becomes of a run whose boards are not all there."""
    bench: str = ""
    """`tcp://host:port` under which the boards reach this bench, on a network of the laboratory; port 0 takes a free
    one. Empty: they are judged by what the ground hears of them."""
    broker: str = ""
    """`mqtt://host:port` under which the boards reach the broker of a run that runs already, where that is another URL
    than this machine's; without user and password. `mqtts://` with files names those of the boards."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run's worth of world, fleet, work and trouble."""

    name: NodeName
    title: str
    epoch: datetime.datetime
    """UTC at the start of the run."""
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=10_000_000)]
    world_step_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    orbit: RingOrbit | WalkerOrbit | ElementsOrbit | TableOrbit
    nodes: Annotated[tuple[NodeSpec, ...], msgspec.Meta(min_length=1)]
    stations: Annotated[tuple[StationSpec, ...], msgspec.Meta(min_length=1)]
    links: Links
    workload: CloudMaskWorkload | None = None
    manager: Manager = Manager()
    emulation: Emulation = Emulation()
    boards: Boards = Boards()
    radiation: Radiation | None = None
    faults: tuple[Fault, ...] = ()
    expect: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """Counter -> least value at the end: a fault that never fired fails the run."""

    @property
    def epoch_utc_ns(self) -> int:
        """The epoch [ns since 1970-01-01T00:00:00Z]."""
        delta = self.epoch - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000

    @property
    def duration_ns(self) -> int:
        """How long the run lasts [ns]."""
        return round(self.duration_s * NS_PER_S)


def shipped() -> list[str]:
    """Names of the scenarios that come with flatrack, sorted."""
    folder = resources.files("hil") / "scenarios"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def find(name: str) -> Path:
    """The file of a scenario, by name or path.

    Raises:
        ConfigError: neither a shipped name nor a file.
    """
    if name in shipped():
        return Path(str(resources.files("hil") / "scenarios" / f"{name}.toml"))
    path = Path(name)
    if path.is_file():
        return path
    raise ConfigError(f"scenario {name!r}: no such file, and not one of the shipped: {', '.join(shipped())}")


def load(name: str) -> Scenario:
    """Read and check a scenario.

    Raises:
        ConfigError: names file, field, value and expectation.
    """
    path = find(name)
    scenario = load_toml(path, Scenario)
    if isinstance(scenario.orbit, ElementsOrbit):
        elements = replace(scenario.orbit, file=str((path.parent / scenario.orbit.file).resolve()))
        scenario = replace(scenario, orbit=elements)
    if any(node.kind == "board" for node in scenario.nodes):
        inventory = str((path.parent / scenario.boards.inventory).resolve())
        scenario = replace(scenario, boards=replace(scenario.boards, inventory=inventory))
    if scenario.emulation.image:
        image = str((path.parent / scenario.emulation.image).resolve())
        scenario = replace(scenario, emulation=replace(scenario.emulation, image=image))
    check(scenario, str(path))
    return scenario


def check(scenario: Scenario, where: str) -> None:
    """Check what types cannot say.

    Raises:
        ConfigError: names where, field, value and expectation.
    """
    if scenario.epoch.tzinfo is None:
        raise ConfigError(
            f"{where}: epoch: {scenario.epoch.isoformat()} has no time zone, expected UTC (end it with Z)"
        )
    for field, names in (
        ("nodes", [node.name for node in scenario.nodes]),
        ("stations", [station.name for station in scenario.stations]),
    ):
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ConfigError(f"{where}: {field}: name {doubled[0]!r} is used twice, expected unique names")
    nodes = [node.name for node in scenario.nodes]
    if isinstance(scenario.orbit, WalkerOrbit) and len(nodes) % scenario.orbit.planes:
        raise ConfigError(
            f"{where}: orbit.planes: {scenario.orbit.planes} does not divide the fleet of {len(nodes)} nodes"
        )
    if scenario.links.topology == "plus_grid" and not isinstance(scenario.orbit, WalkerOrbit):
        raise ConfigError(f"{where}: links.topology: 'plus_grid' needs planes, expected orbit.kind = 'walker'")
    if scenario.links.topology != "none" and scenario.links.isl is None:
        raise ConfigError(
            f"{where}: links.isl: missing, expected because links.topology is {scenario.links.topology!r}"
        )
    if isinstance(scenario.orbit, TableOrbit):
        if scenario.stations[0].antennas < len(nodes):
            raise ConfigError(
                f"{where}: stations[0].antennas: {scenario.stations[0].antennas}, expected {len(nodes)}, one for each "
                "node on the table"
            )
        if scenario.links.topology != "none" or scenario.radiation is not None:
            raise ConfigError(f"{where}: orbit.kind: 'table' has no laser links and no radiation, expected neither")
    for field, spec in (("links.ground", scenario.links.ground), ("links.isl", scenario.links.isl)):
        if spec is not None:
            _check_coding(spec, f"{where}: {field}")
    for index, one in enumerate(scenario.nodes):
        _check_node(one, f"{where}: nodes[{index}]")
    for field, url, check_url in (
        ("bench", scenario.boards.bench, check_bench),
        ("broker", scenario.boards.broker, check_broker_of_boards),
    ):
        try:
            if url:
                check_url(url)
        except ConfigError as error:
            raise ConfigError(f"{where}: boards.{field}: {error}") from None
    for index, fault in enumerate(scenario.faults):
        check_fault(scenario, fault, f"{where}: faults[{index}]")
        if fault.at_s >= scenario.duration_s:
            raise ConfigError(
                f"{where}: faults[{index}].at_s: {fault.at_s} is past the run's end, expected < {scenario.duration_s}"
            )


def check_fault(scenario: Scenario, fault: Fault, where: str) -> None:
    """Check that what a fault strikes is there and can suffer it.

    Raises:
        ConfigError: names where, field, value and expectation.
    """
    kinds = {node.name: node.kind for node in scenario.nodes}
    node, link = getattr(fault, "node", None), getattr(fault, "link", None)
    if node is not None and node not in kinds:
        raise ConfigError(f"{where}.node: {node!r} is not in the fleet")
    if node is not None and (why := objection(kinds[node], fault)):
        raise ConfigError(f"{where}.node: {node!r} {why}")
    if node is not None and kinds[node] == "board" and needs_door(fault) and not scenario.boards.bench:
        raise ConfigError(
            f"{where}.node: {node!r} is a board that the bench has no door to, expected boards.bench = "
            "'tcp://host:port'"
        )
    links = link_names(scenario)
    if link is not None and link not in links:
        raise ConfigError(f"{where}.link: {link!r} is no link of this fleet; links are named like {sorted(links)[0]!r}")


def _check_node(node: NodeSpec, where: str) -> None:
    if node.kind != "external" and not node.profile:
        raise ConfigError(f"{where}.profile: missing, expected a board profile for a node of kind {node.kind!r}")
    if node.link and node.kind not in LAB_KINDS:
        raise ConfigError(f"{where}.link: {node.link!r}, expected none for a node of kind {node.kind!r}")
    if node.board and node.kind != "board":
        raise ConfigError(f"{where}.board: {node.board!r}, expected none for a node of kind {node.kind!r}")
    if bool(node.ports) != (node.kind == "external"):
        raise ConfigError(
            f"{where}.ports: {len(node.ports)} ports, expected some for external nodes and none for others"
        )


def with_kind(scenario: Scenario, kind: Kind, link: Wire) -> Scenario:
    """The scenario with all nodes of one kind, but external ones, which stay what they are."""
    nodes = tuple(
        node if node.kind == "external" else replace(node, kind=kind, link=link, board="") for node in scenario.nodes
    )
    changed = replace(scenario, nodes=nodes)
    check(changed, scenario.name)
    return changed


def needs_real_time(scenario: Scenario) -> bool:
    """Whether some node cannot run in virtual time."""
    return any(node.kind in REAL_TIME_KINDS for node in scenario.nodes)


def check_virtual(scenario: Scenario) -> None:
    """Check that a scenario can run in virtual time. Raises: ConfigError: names the node that cannot."""
    for node in scenario.nodes:
        if node.kind in REAL_TIME_KINDS:
            raise ConfigError(
                f"node {node.name}: kind {node.kind!r} runs in real time only, expected a time scale (--time-scale 1)"
            )


def foreign_processors(scenario: Scenario) -> frozenset[int]:
    """Indices of the nodes whose processor may be another than the bench's: their masks may differ in some pixels."""
    return frozenset(index for index, node in enumerate(scenario.nodes) if node.kind in OWN_BOARD_KINDS)


def _check_coding(spec: LinkSpec, where: str) -> None:
    try:
        coding(spec.coding).encode(bytes(spec.segment_bytes + SEGMENT_HEADER_BYTES_MAX))
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    except FrameError as error:
        raise ConfigError(f"{where}.segment_bytes: {spec.segment_bytes} in coding {spec.coding!r}: {error}") from None


def isl_pairs(scenario: Scenario) -> list[tuple[int, int]]:
    """Inter-satellite links as pairs of fleet indices, each once."""
    count = len(scenario.nodes)
    if scenario.links.topology == "none" or count < 2:
        return []
    if scenario.links.topology == "ring":
        return ring_pairs(count)
    assert isinstance(scenario.orbit, WalkerOrbit), "check refuses a grid without planes"
    return plus_grid_pairs(scenario.orbit.planes, count // scenario.orbit.planes)


def link_names(scenario: Scenario) -> list[str]:
    """Names of all links that faults can strike."""
    nodes = [node.name for node in scenario.nodes]
    return [f"{nodes[a]}/{nodes[b]}" for a, b in isl_pairs(scenario)] + [
        f"{station.name}/{node}" for station in scenario.stations for node in nodes
    ]


def scenario_digest(scenario: Scenario) -> str:
    """BLAKE2b-64 of a scenario's content in hex: two files that say the same have the same digest."""
    return hashlib.blake2b(msgspec.json.encode(scenario, order="deterministic"), digest_size=8).hexdigest()
