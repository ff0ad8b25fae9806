"""pytest fixtures `board` and `cluster`: the same test on coroutines, processes, emulated boards and real ones.

    pytest --flatrack-kind simulated | process | emulated | board

docs/pytest.md has the fixtures and an example.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from flightsw.errors import FlatrackError
from hil.bench.execute import real_time
from hil.bench.handles import Cluster, Satellite
from hil.bench.kinds import Kind
from hil.bench.run import Bench
from hil.bench.scenario import Scenario, check, load, needs_real_time, with_kind
from hil.bench.stepped import SteppedRun
from hil.bench.surroundings import prepare_surroundings
from hil.inventory import boards as inventories

KINDS: Final = ("simulated", "process", "emulated", "board")
MARKER: Final = "flatrack"
TABLE: Final = "table"
"""The shipped scenario of a test that names none: one satellite, always in view."""
SEED: Final = 7
TIME_SCALES: Final[dict[str, float]] = {"process": 10.0, "emulated": 2.0, "board": 1.0}
"""Mission seconds in a second where a test runs in real time and nobody says otherwise."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("flatrack", "satellites under test")
    group.addoption("--flatrack-kind", choices=KINDS, default="simulated", help="what satellites run as")
    group.addoption("--flatrack-boards", metavar="FILE", help="inventory of real boards (boards.toml)")
    group.addoption("--flatrack-image", metavar="FOLDER", help="folder of the image of emulated boards")
    group.addoption("--flatrack-time-scale", type=float, help="mission seconds in a second, but for simulated ones")


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(scenario, seed={SEED}, kinds=None): scenario (name, file or Scenario) of the fixtures `board` and "
        "`cluster`, and the kinds that the test is for",
    )


@pytest.fixture
def flatrack_kind(request: pytest.FixtureRequest) -> str:
    """What satellites run as: the option's, unless a test's own fixture says otherwise."""
    kind: str = request.config.getoption("--flatrack-kind")
    return kind


@pytest.fixture
def cluster(request: pytest.FixtureRequest, flatrack_kind: Kind, tmp_path: Path) -> Iterator[Cluster]:
    """The fleet of the test's scenario, flying. After the test it is judged by the six invariants."""
    marker = request.node.get_closest_marker(MARKER)
    option = request.config.getoption
    try:
        asked = _asked(*(() if marker is None else marker.args), **({} if marker is None else marker.kwargs))
        if asked.kinds and flatrack_kind not in asked.kinds:
            pytest.skip(f"for satellites of kind {', '.join(asked.kinds)}, not {flatrack_kind}")
        scenario = prepare(asked.scenario, flatrack_kind, option("--flatrack-boards"), option("--flatrack-image"))
        pace = None
        if needs_real_time(scenario):
            pace = real_time(scenario, option("--flatrack-time-scale") or TIME_SCALES.get(flatrack_kind, 1.0))
        folder = tmp_path / "run"
        folder.mkdir()
        bench = Bench(scenario, asked.seed, folder=folder, pace=pace, surroundings=prepare_surroundings(scenario))
        run = SteppedRun(bench)
        run.start()
    except FlatrackError as error:
        pytest.fail(f"flatrack: {error}", pytrace=False)
    yield Cluster(run)  # pytest comes back here whether the test failed or not
    outcome = run.end()
    if not outcome.passed:
        broken = [f"rule {one.rule} at {one.t_ns / 1e9:.1f} s: {one.text}" for one in outcome.violations]
        pytest.fail("\n".join([*broken, outcome.crash.strip()]).strip(), pytrace=False)


@pytest.fixture
def board(cluster: Cluster) -> Satellite:
    """The first satellite of the test's scenario: with the default one, a board that is always in view."""
    return next(iter(cluster.satellites.values()))


class _Asked(msgspec.Struct, frozen=True):
    scenario: Scenario
    seed: int
    kinds: tuple[str, ...]


def _asked(scenario: str | Path | Scenario = TABLE, *, seed: int = SEED, kinds: Any = ()) -> _Asked:
    loaded = scenario if isinstance(scenario, Scenario) else load(str(scenario))
    return _Asked(loaded, seed, tuple(kinds))


def prepare(scenario: Scenario, kind: Kind, boards: str | None, image: str | None) -> Scenario:
    """The scenario with all satellites of one kind.

    Args:
        scenario: as written.
        kind: of its satellites.
        boards: inventory of real boards; the first of it are the satellites.
        image: folder of the image of emulated boards.

    Raises:
        ConfigError: there are too few boards, or a fault that the kind cannot suffer.
    """
    changed = with_kind(scenario, kind, "")
    if image is not None:
        emulation = msgspec.structs.replace(changed.emulation, image=str(Path(image).resolve()))
        changed = msgspec.structs.replace(changed, emulation=emulation)
    if kind == "board":
        path = Path(boards or inventories.FILE).resolve()
        names = iter(inventories.load(path).boards)
        nodes = tuple(
            node if node.kind == "external" else msgspec.structs.replace(node, board=next(names, node.name))
            for node in changed.nodes
        )
        settings = msgspec.structs.replace(changed.boards, inventory=str(path))
        changed = msgspec.structs.replace(changed, nodes=nodes, boards=settings)
        check(changed, changed.name)
    return changed
