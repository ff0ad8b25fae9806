"""The broker of a run as boards see it: by which URL, with which password, and what is refused before a run."""

import asyncio
import dataclasses
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner

from flightsw.errors import ConfigError
from flightsw.host.settings import LinkSettings
from flightsw.link.urls import open_link, parse_url
from hil.bench import board_addresses, composition, lab_broker
from hil.bench.execute import real_time
from hil.bench.inventory_board import open_boards
from hil.bench.lab import Lab
from hil.bench.lab_broker import check_broker, start_broker, url_on_board
from hil.bench.pace import LATENCY_MQTT_S, LATENCY_UART_S
from hil.bench.scenario import Boards, check, load
from hil.bench.settings_files import write_settings
from hil.bench.table import Watchers
from hil.broker import Broker
from hil.cli import main
from hil.emulation.wheels import requirements

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "three.toml")
EMULATED, BOARD = {"kind": "emulated", "link": "mqtt"}, {"kind": "board", "link": "mqtt"}
BENCH = "tcp://192.0.2.5:0"
WAIT_S = 60.0


def fleet(first=None, second=None, **boards):
    """The example, with its first nodes changed."""
    scenario = load(EXAMPLE)
    nodes = list(scenario.nodes)
    for index, changes in enumerate((first, second)):
        nodes[index] = msgspec.structs.replace(nodes[index], **(changes or {}))
    return msgspec.structs.replace(scenario, nodes=tuple(nodes), boards=Boards(**boards), faults=(), workload=None)


def seen(scenario, url, index=0):
    """(servers, user, password, client, prefix) of the URL that a board is given."""
    settings = parse_url(url_on_board(scenario, scenario.nodes[index], url))
    assert settings.userfile == ""
    return settings.servers, settings.username, settings.password, settings.client, settings.prefix


# -- what a scenario may say


@pytest.mark.parametrize("kind", ["process", "emulated", "board"])
@pytest.mark.parametrize("link", ["", "serial", "mqtt"])
def test_every_program_outside_the_bench_may_be_on_either_wire(kind, link):
    check(fleet({"kind": kind, "link": link}, bench=BENCH), "here")


@pytest.mark.parametrize(
    ("broker", "why"),
    [
        ("tcp://192.0.2.7:1883", r"here: boards\.broker: link: scheme 'tcp'"),
        ("serial:///dev/ttyUSB0", r"here: boards\.broker: broker: scheme 'serial', expected mqtt"),
        ("mqtt://192.0.2.7:0", r"here: boards\.broker: link mqtt: port 0, expected 1 to 65535"),
        ("192.0.2.7", r"here: boards\.broker: link: scheme ''"),
        (
            "mqtt://node:hush@192.0.2.7",
            r"here: boards\.broker: has user:password@, .* expected a login in the userfile",
        ),
        ("mqtt://192.0.2.7?qos=1", r"here: boards\.broker: broker: qos 1, expected 0"),
    ],
)
def test_a_broker_of_boards_that_is_none_is_named_with_its_field(broker, why):
    with pytest.raises(ConfigError, match=why) as caught:
        check(fleet(BOARD, broker=broker), "here")
    assert "hush" not in str(caught.value)


def test_a_broker_of_boards_does_not_hang_on_the_name_of_the_scenario():
    for broker in ("mqtt://192.0.2.7", "mqtt://192.0.2.7/of/mine", "mqtts://192.0.2.7?userfile=/etc/login"):
        check(msgspec.structs.replace(fleet(BOARD, broker=broker), name="a" * 32), "my run.toml")
        check(msgspec.structs.replace(fleet(BOARD, broker=broker), name="My run"), "here")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "0", "[::ffff:0.0.0.0]"])
def test_a_bench_has_one_address_and_not_every(host):
    with pytest.raises(
        ConfigError, match=r"here: boards\.bench: 'tcp://.*' is every address, expected the one of this"
    ):
        check(fleet(BOARD, bench=f"tcp://{host}:0"), "here")


# -- the URL of each board


def test_an_emulated_board_sees_loopback_under_the_name_that_qemu_gives_it():
    for host in ("127.0.0.1", "localhost"):
        servers, user, password, client, prefix = seen(fleet(EMULATED), f"mqtt://{host}:1899")
        assert (servers, user, password) == ((("10.0.2.2", 1899),), "", "")
        assert (client, prefix) == ("sat-01", "flatrack")
    assert seen(fleet(EMULATED), "mqtt://192.0.2.7,127.0.0.1:1884")[0] == (("192.0.2.7", 1883), ("10.0.2.2", 1884))


@pytest.fixture
def names(monkeypatch):
    """Name -> address, as this machine resolves it; of others it knows none."""
    known = {"broker.lab": "192.0.2.9", "this.lab": "127.0.0.1", "own.lab": "127.0.1.1"}

    def getaddrinfo(host, port, *family_and_type, **options):
        return original(known.get(host, host), port, *family_and_type, flags=socket.AI_NUMERICHOST, **options)

    original = socket.getaddrinfo
    monkeypatch.setattr(board_addresses.socket, "getaddrinfo", getaddrinfo)


def test_an_emulated_board_has_no_resolver_and_is_told_addresses(names):
    assert seen(fleet(EMULATED), "mqtt://broker.lab:1890")[0] == (("192.0.2.9", 1890),)
    assert seen(fleet(EMULATED), "mqtt://this.lab")[0] == (("10.0.2.2", 1883),)
    assert seen(fleet(BOARD), "mqtt://broker.lab:1890")[0] == (("broker.lab", 1890),), "a real one has its own"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mqtt://127.3.4.5", r"127\.3\.4\.5 is not reached from an emulated board, expected 127\.0\.0\.1, or an"),
        ("mqtt://192.0.2.7,own.lab", r"127\.0\.1\.1 is not reached from an emulated board"),
        ("mqtt://0.0.0.0", r"0\.0\.0\.0 is not reached from an emulated board"),
        ("mqtt://[::1]", r"host '::1': .*, expected an address of IPv4, or a name that this machine resolves to one"),
        ("mqtt://nowhere.lab", r"host 'nowhere\.lab': .*, expected an address of IPv4, or a name that"),
        (
            "mqtts://localhost",
            r"reaches it as 10\.0\.2\.2, which its certificate does not name, expected mqtt://, or an",
        ),
        ("mqtts://broker.lab", r"reaches it as 192\.0\.2\.9, which its certificate does not name"),
    ],
)
def test_a_host_that_an_emulated_board_does_not_reach_is_refused_in_one_line(url, why, names):
    with pytest.raises(ConfigError, match=f"three: node sat-01: broker .*{why}") as caught:
        real_time(fleet(EMULATED), 1.0, url)
    assert "\n" not in str(caught.value)


def test_a_name_of_loopback_is_loopback(names):
    with pytest.raises(ConfigError, match=r"broker own\.lab: is reached from this machine alone"):
        check_broker(fleet(BOARD, bench=BENCH), "mqtt://own.lab")
    assert start_broker(fleet(BOARD, bench="tcp://own.lab:0"), "nats", print)._host == "127.0.0.1"


def test_the_prefix_of_a_url_is_kept_on_every_board_and_only_a_url_without_has_the_benchs():
    mine = "mqtt://192.0.2.7/my/lab"
    assert [seen(fleet(one), mine)[4] for one in (EMULATED, BOARD)] == ["my/lab", "my/lab"]
    assert seen(fleet(BOARD, broker="mqtt://192.0.2.8"), mine)[4] == "my/lab"
    assert seen(fleet(BOARD, broker="mqtt://192.0.2.8/my/lab"), mine)[4] == "my/lab"
    assert seen(fleet(BOARD, broker="mqtt://192.0.2.8/flatrack"), "mqtt://192.0.2.7")[4] == "flatrack"
    for theirs, ours, why in (
        ("mqtt://192.0.2.8/yours", mine, "prefix 'yours', expected 'my/lab', as in the URL of --broker, or none"),
        ("mqtt://192.0.2.8/yours", "mqtt://192.0.2.7", "prefix 'yours', expected 'flatrack'"),
    ):
        with pytest.raises(ConfigError, match=rf"three: boards\.broker: {why}"):
            check_broker(fleet(BOARD, broker=theirs), ours)


@pytest.mark.parametrize("kind", ["process", "emulated", "board"])
def test_lab_wires_have_no_sessions_that_last(kind):
    scenario = fleet({"kind": kind, "link": "mqtt"})
    with pytest.raises(ConfigError, match="broker: qos 1, expected 0 for lab wires"):
        check_broker(scenario, "mqtt://192.0.2.7?qos=1")
    check_broker(scenario, "mqtt://192.0.2.7?qos=0")
    check_broker(fleet(), "mqtt://192.0.2.7?qos=1")


def test_a_real_board_is_given_the_url_that_it_reaches():
    ours = "mqtt://127.0.0.1:1883"
    assert seen(fleet(BOARD), "mqtt://192.0.2.7:1890")[0] == (("192.0.2.7", 1890),)
    assert seen(fleet(BOARD, broker="mqtt://192.0.2.7"), ours)[0] == (("192.0.2.7", 1883),)
    assert seen(fleet(BOARD, bench="tcp://127.0.0.2:0"), ours)[0] == (("127.0.0.1", 1883),), "a board on this machine"
    assert seen(fleet(None, EMULATED, broker="mqtt://192.0.2.7"), ours, 1)[0] == (("10.0.2.2", 1883),)


def test_a_password_goes_along_and_no_file_of_this_machine(tmp_path):
    (tmp_path / "login").write_text("node:sec:ret/\n")
    ours = f"mqtt://192.0.2.7?userfile={tmp_path}/login"
    for scenario in (fleet(BOARD), fleet(EMULATED), fleet(BOARD, broker="mqtt://192.0.2.8")):
        assert seen(scenario, ours)[1:3] == ("node", "sec:ret/")
    assert seen(fleet(BOARD), "mqtt://a:b@192.0.2.7")[1:3] == ("a", "b")
    own = fleet(BOARD, broker="mqtts://192.0.2.8?userfile=/etc/login&cafile=/etc/ca.pem")
    settings = parse_url(url_on_board(own, own.nodes[0], ours))
    assert (settings.userfile, settings.tls.cafile, settings.username) == ("/etc/login", "/etc/ca.pem", "")


@pytest.mark.parametrize(
    ("changes", "boards", "broker", "why"),
    [
        (
            BOARD,
            {},
            "nats",
            r"sat-01: link 'mqtt' of a board, expected boards\.bench = 'tcp://host:port', where boards",
        ),
        (
            BOARD,
            {"bench": BENCH, "broker": "mqtt://b"},
            "nats",
            r"boards\.broker is that of a broker that runs already, expected",
        ),
        (
            BOARD,
            {"bench": BENCH},
            "mqtt://localhost",
            r"broker localhost: is reached from this machine alone, expected",
        ),
        (BOARD, {}, "mqtts://b?cafile=ca.pem", r"names files of this machine, .* expected boards\.broker = 'mqtts://"),
        (
            EMULATED,
            {},
            "mqtts://b?cafile=ca.pem",
            r"names files of this machine, which the board has not, expected none",
        ),
        (EMULATED, {}, "mqtt://b?userfile=/nowhere", r"userfile /nowhere: "),
    ],
)
def test_a_broker_that_a_board_cannot_reach_is_refused_before_the_run(changes, boards, broker, why):
    scenario = fleet(changes, **boards)
    with pytest.raises(ConfigError, match=why) as caught:
        real_time(scenario, 1.0, broker)
    assert "\n" not in str(caught.value)
    check_broker(fleet({"kind": changes["kind"]}, **boards), broker)


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "boards.toml").write_text('[boards.sat-01]\nkind = "host"\nssh = "nowhere"\n')
    text = Path(EXAMPLE).read_text().replace('name = "sat-01"', 'name = "sat-01"\nkind = "board"\nlink = "mqtt"', 1)
    (tmp_path / "own.toml").write_text(text)
    done = CliRunner().invoke(main, ["run", str(tmp_path / "own.toml"), "--out", str(tmp_path)])
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert "link 'mqtt' of a board, expected boards.bench" in done.output


def test_settings_with_a_password_are_their_owners_from_the_first_instant(tmp_path, monkeypatch):
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.touch(0o644)
    write_settings(old, LinkSettings(url="mqtt://a:b@192.0.2.7/x"))
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    write_settings(new, LinkSettings(url="mqtt://a:b@192.0.2.7/x"))
    assert [path.stat().st_mode & 0o777 for path in (old, new)] == [0o600, 0o600]


# -- where the bench's own broker listens


@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_a_broker_for_real_boards_listens_where_they_reach_it_and_wants_a_password(kind, need_tool, monkeypatch):
    if kind == "mosquitto":
        need_tool("mosquitto")
    monkeypatch.setattr(lab_broker, "is_loopback", lambda host: host == "127.0.0.1")  # and 127.0.0.2 is a network
    scenario = fleet(BOARD, EMULATED, bench="tcp://127.0.0.2:0")
    async with start_broker(scenario, kind, print) as broker, asyncio.timeout(WAIT_S):
        ((host, port),) = parse_url(f"{broker.url}".replace("?", "/x?"), client="x").servers
        assert host == "127.0.0.2"
        for index in (0, 1):
            link = await open_link(url_on_board(scenario, scenario.nodes[index], broker.url))
            await link.wait_connected()
            await link.close()
        stranger = await open_link(f"mqtt://{host}:{port}/flatrack?client=stranger")
        assert not stranger.status().is_connected
        assert "127.0.0.2" in stranger.status().error
        await stranger.close()


@pytest.mark.parametrize("scenario", [fleet(EMULATED, bench=BENCH), fleet({"kind": "board"}, bench=BENCH)])
async def test_a_broker_that_no_real_board_needs_listens_on_loopback(scenario):
    async with start_broker(scenario, "nats", print) as broker:
        assert broker.url.startswith("mqtt://127.0.0.1:")
        assert "?" not in broker.url


async def test_an_address_that_is_none_of_this_machines_is_named():
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ConfigError, match=rf"broker: host '{host}': .*expected an address of this machine"):
            async with Broker.start("nats", host=host):
                pass


# -- what follows from the wire


def test_links_wait_for_a_broker_or_for_the_slowest_board():
    assert real_time(fleet(BOARD, bench=BENCH), 1.0).latency_s == LATENCY_MQTT_S
    assert real_time(fleet({"kind": "board"}), 1.0).latency_s == LATENCY_UART_S
    assert real_time(fleet(EMULATED), 1.0).latency_s == LATENCY_UART_S, "its processor is slow on any wire"


def test_a_board_on_a_broker_is_planned_without_its_uart(tmp_path):
    inventory = tmp_path / "boards.toml"
    inventory.write_text('[boards.sat-01]\nkind = "host"\nuart = { path = "/dev/ttyS9", baud = 9600 }\n')
    on_uart = fleet({"kind": "board"}, EMULATED, inventory=str(inventory))
    on_broker = fleet(BOARD, EMULATED, inventory=str(inventory), bench=BENCH)
    assert open_boards(on_uart).bauds(on_uart) == {"sat-01": 9600}
    assert open_boards(on_broker).bauds(on_broker) == {}
    emulated = composition.wire_ceilings(on_broker, {}, 2.0)
    assert emulated == {12: composition.UART_SHARE * 8 * composition.EMULATED_BYTES_S / 2.0}
    by_uart = composition.wire_ceilings(fleet({"kind": "emulated"}), {}, 2.0)
    assert by_uart == {11: composition.UART_SHARE * 8 * 11_520}


def test_a_board_has_the_wheels_that_a_broker_takes():
    assert any(one.startswith("aiomqtt") for one in requirements())


async def test_who_watches_a_lab_that_closes_sends_nothing_to_a_broker_that_has_gone():
    done = []

    async def refresh():
        done.append("refresh")

    async def close():
        done.append("close")

    watchers = Watchers(*[None] * len(dataclasses.fields(Watchers)))
    loop = asyncio.get_running_loop()
    lab = Lab(None, None, None, pace=None, loop=loop, relay=None, keys={}, folder=None, watchers=watchers)
    lab.ground = SimpleNamespace(refresh=refresh, close=close, program=SimpleNamespace(abandon=lambda: None))
    lab._mqtt = SimpleNamespace(publish=lambda *_: done.append("probe"))
    await lab.close()
    await lab.refresh()
    assert done == ["close", "refresh"]
