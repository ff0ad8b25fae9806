"""A prepared card, file by file, as mtools reads it; what does not fit is refused and leaves nothing."""

import json
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner

from flightsw.errors import ConfigError
from hil.cards.cloud_config import Login
from hil.cards.preparation import Node, prepare
from hil.cli import Group
from hil.commands.board_prepare import flash_command, prepare_command
from hil.inventory.wheelhouse import Wheel, wheels_in

ROOT = Path(__file__).parents[3]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBsH5C0pGSA3ZGb4BxkB3RrbxHqPUEqS0sK1q5sT7dYp lab"
STOCK = {"kernel8.img", "overlays"}
WRITTEN = {"config.txt", "cmdline.txt", "user-data", "meta-data", "network-config", "flatrack"}


def node(settings, **changes):
    given = {"name": "sat-01", "board": "raspberry-pi-5", "settings": settings, "instance": "i-1"} | changes
    return Node(**given)


@pytest.fixture
def make(make_card, tmp_path, settings, wheelhouse):
    """Prepares a card and gives what mtools sees of it."""

    def run(image=None, out="card.img", **changes):
        stock = make_card(python="3.13") if image is None else image
        done = prepare(
            stock.path, tmp_path / out, node(settings, **changes), lambda target: wheels_in(wheelhouse, target)
        )
        return done, type(stock)(tmp_path / out)

    return run


def cloud_config(card):
    text = card.read("user-data").decode()
    assert text.startswith("#cloud-config\n")
    return json.loads(text.partition("\n")[2])


def test_every_file_is_there_and_the_file_system_is_clean(make, tmp_path, settings, wheelhouse):
    done, card = make()
    assert card.check(tmp_path / "scratch") == ""
    assert set(card.names()) == STOCK | WRITTEN
    assert card.names("flatrack/wheels") == sorted(path.name for path in wheelhouse.iterdir())
    assert card.names("flatrack/files") == ["flatrack.service", "settings"]
    assert card.names("flatrack/files/settings") == ["node.toml", "plan.json", "sat-01.keys.toml", "world.json"]
    for path in wheelhouse.iterdir():
        assert card.read(f"flatrack/wheels/{path.name}") == path.read_bytes()
    assert card.read("flatrack/files/settings/sat-01.keys.toml") == (settings / "keys/sat-01.keys.toml").read_bytes()
    assert card.read("flatrack/program/hil/cards/first_boot.py") == (ROOT / "hil/cards/first_boot.py").read_bytes()
    side = "hil/inventory/board_side.py"
    assert card.read(f"flatrack/program/{side}") == (ROOT / side).read_bytes()
    assert card.read("kernel8.img") == b"a kernel"
    assert done.files.keys() == {
        *WRITTEN - {"flatrack"},
        "flatrack/flatrack-first-boot.service",
        "flatrack/request.json",
        f"flatrack/program/{side}",
        "flatrack/program/hil/cards/first_boot.py",
        "flatrack/files/flatrack.service",
        *(f"flatrack/files/settings/{name}" for name in card.names("flatrack/files/settings")),
        *(f"flatrack/wheels/{path.name}" for path in wheelhouse.iterdir()),
    }


def test_the_request_names_every_wheel_by_its_content_and_every_file_with_its_mode(make):
    done, card = make()
    request = json.loads(card.read("flatrack/request.json"))
    assert request["release"] == done.release.digest
    assert request["environment"] == done.release.environment
    assert dict(request["wheel_files"]) == {wheel.path.name: wheel.sha256 for wheel in done.release.wheels}
    assert dict(request["files"])["settings/sat-01.keys.toml"] == 0o600
    assert dict(request["files"])["flatrack.service"] == 0o644


def test_firmware_and_kernel_are_told_what_the_board_needs(make):
    _, card = make(board="raspberry-pi-4")
    assert (
        card.read("config.txt")
        .decode()
        .endswith(
            "# flatrack: begin\n[all]\nenable_uart=1\ndtoverlay=disable-bt\ndtparam=watchdog=on\n# flatrack: end\n"
        )
    )
    words = card.read("cmdline.txt").decode().split()
    assert "console=tty1" in words
    assert "cgroup_enable=memory" in words
    assert not any(word.startswith("console=serial") for word in words)


def test_cloud_init_makes_the_host_and_starts_the_installation(make):
    _, card = make(login=Login("lab", KEY))
    config = cloud_config(card)
    assert config["hostname"] == "sat-01"
    assert config["users"][0]["ssh_authorized_keys"] == [KEY]
    assert config["users"][0]["lock_passwd"] is True
    assert ["systemctl", "enable", "flatrack-first-boot.service"] in config["runcmd"]
    assert ["systemctl", "enable", "--now", "ssh"] in config["runcmd"]
    assert b"ConditionPathExists=/boot/firmware/flatrack/request.json" in card.read(
        "flatrack/flatrack-first-boot.service"
    )
    assert json.loads(card.read("meta-data")) == {"dsmode": "local", "instance-id": "i-1", "local-hostname": "sat-01"}
    assert json.loads(card.read("network-config"))["network"]["version"] == 2


def test_without_a_key_nobody_can_log_in(make):
    config = cloud_config(make()[1])
    assert config["users"] == []
    assert ["systemctl", "enable", "--now", "ssh"] not in config["runcmd"]


def test_to_prepare_a_card_again_changes_the_instance_alone(make):
    done, first = make()
    again, second = make(image=first, out="again.img", instance="i-2")
    assert again.release.digest == done.release.digest
    differing = [name for name in done.files if first.read(name) != second.read(name)]
    assert differing == ["meta-data"]
    assert second.names() == first.names()


def test_what_an_earlier_release_left_on_the_card_goes(make, tmp_path, wheelhouse):
    _, first = make()
    (wheelhouse / "numpy-2.5.1-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl").unlink()
    _, second = make(image=first, out="again.img")
    assert not any(name.startswith("numpy") for name in second.names("flatrack/wheels"))
    assert second.check(tmp_path / "scratch") == ""


def test_the_stock_image_stays_as_it_was(make, make_card):
    stock = make_card(python="3.13")
    before = stock.path.read_bytes()
    make(image=stock)
    assert stock.path.read_bytes() == before


def test_the_python_of_the_image_decides_which_wheels_are_asked_for(make_card, tmp_path, settings, need_tool):
    need_tool("debugfs")
    asked = []

    def wheels(target):
        asked.append(str(target))
        path = tmp_path / "flatrack-0.1.0-py3-none-any.whl"
        path.write_bytes(b"wheel")
        return [Wheel(path, "0" * 64)]

    prepare(make_card(python="3.11").path, tmp_path / "a.img", node(settings), wheels)
    prepare(make_card(python="3.13").path, tmp_path / "b.img", node(settings), wheels)
    prepare(make_card(python="3.13").path, tmp_path / "c.img", node(settings, python=(3, 12)), wheels)
    assert asked == [
        "aarch64, Python 3.11, glibc 2.36",
        "aarch64, Python 3.13, glibc 2.41",
        "aarch64, Python 3.12, glibc 2.39",
    ]


def refused(make, tmp_path, said, **changes):
    with pytest.raises(ConfigError, match=said):
        make(**changes)
    assert not list(tmp_path.glob("card.img*"))


def test_an_image_whose_python_cannot_be_seen_asks_for_it(make, make_card, tmp_path):
    refused(make, tmp_path, r"which Python the image has .* expected --python 3\.13", image=make_card())


@pytest.mark.parametrize("python", [None, (3, 9)])
def test_an_image_whose_python_is_too_old_is_refused(make, make_card, tmp_path, python):
    refused(make, tmp_path, r"Python 3\.9, expected 3\.11 or newer", image=make_card(python="3.9"), python=python)


def test_an_image_without_cloud_init_is_refused(make, make_card, tmp_path):
    image = make_card(has_cloud_init=False, python="3.11")
    refused(make, tmp_path, "no meta-data on its boot partition: it has no cloud-init", image=image, python=(3, 13))


def test_a_boot_partition_that_is_too_full_is_refused_before_anything_is_written(make, make_card, tmp_path):
    image = make_card(python="3.13")
    image.put("large", bytes(25 << 20), tmp_path / "scratch")
    refused(make, tmp_path, r"its boot partition has \d+ bytes free, expected \d+: \d+ files", image=image)


def test_wheels_of_another_machine_are_refused(make, tmp_path, wheelhouse):
    (wheelhouse / "msgspec-0.20.0-cp313-cp313-manylinux_2_17_x86_64.whl").write_bytes(b"x86")
    refused(make, tmp_path, "msgspec.* expected one for aarch64, Python 3.13")


def test_settings_of_another_node_are_refused(make, tmp_path):
    refused(make, tmp_path, r"node\.name = 'sat-01', expected 'sat-02'", name="sat-02")


def test_an_image_that_is_not_one_of_a_raspberry_pi_is_refused(make, make_card, tmp_path):
    image = make_card(python="3.13", command_line="quiet")
    refused(make, tmp_path, r"cmdline\.txt: no root=", image=image)


# -- the command


@pytest.fixture
def flatrack():
    """Runs a command as `flatrack board` would."""
    group = Group("board")
    group.add_command(prepare_command)
    group.add_command(flash_command)

    def run(*words):
        done = CliRunner().invoke(group, [str(word) for word in words])
        return done.exit_code, done.output

    return run


@pytest.fixture
def words(settings, wheelhouse, tmp_path):
    return [
        *("prepare", "--board", "raspberry-pi-5", "--node", "sat-01", "--settings", settings),
        *("--wheelhouse", wheelhouse, "--image", tmp_path / "stock.img.xz"),
    ]


def test_the_command_prepares_a_packed_image_and_says_what_it_wrote(make_card, flatrack, words, tmp_path):
    stock = make_card(python="3.13")
    (tmp_path / "stock.img.xz").write_bytes(lzma.compress(stock.path.read_bytes(), preset=0))
    (tmp_path / "key.pub").write_text(KEY + "\n")
    code, said = flatrack(*words, "--out", tmp_path / "card.img", "--ssh-key", tmp_path / "key.pub")
    assert code == 0, said
    assert "of sat-01: flatrack 0.1.0, 3 wheels" in said
    card = type(stock)(tmp_path / "card.img")
    assert cloud_config(card)["users"][0]["name"] == "flatrack"
    first = json.loads(card.read("meta-data"))["instance-id"]
    assert flatrack(*words, "--out", tmp_path / "two.img")[0] == 0
    second = json.loads(type(stock)(tmp_path / "two.img").read("meta-data"))["instance-id"]
    assert first.startswith("flatrack-sat-01-")
    assert first != second


def test_the_command_prepares_a_card_in_a_reader(make_card, make_loop, flatrack, words, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stock = make_card(python="3.13")
    (tmp_path / "stock.img.xz").write_bytes(stock.path.read_bytes())
    device = make_loop(stock.path.stat().st_size + (1 << 20))
    code, said = flatrack(*words, "--device", device, "--yes", "--force-fixed")
    assert code == 0, said
    assert "written and read back, SHA-256" in said
    card = type(stock)(device)
    assert cloud_config(card)["hostname"] == "sat-01"
    assert "settings" in card.names("flatrack/files")
    assert not list((tmp_path / "cache/flatrack/cards").iterdir()), "no keys are left on this machine"


def test_a_card_that_is_too_small_is_refused_with_nothing_written(make_card, make_loop, flatrack, words, tmp_path):
    stock = make_card(python="3.13")
    (tmp_path / "stock.img.xz").write_bytes(stock.path.read_bytes())
    device = make_loop(stock.path.stat().st_size - 512)
    code, said = flatrack(*words, "--device", device, "--yes", "--force-fixed")
    assert code == 2
    assert f"expected at least {stock.path.stat().st_size}" in said
    assert device.read_bytes().count(0) == stock.path.stat().st_size - 512


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "expected one of them"),
        (["--out", "a", "--device", "b"], "expected one of them"),
        (["--out", "a", "--node", "Sat 1"], "--node Sat 1: expected lower-case"),
        (["--out", "a", "--python", "three"], "--python three: expected a version such as 3.13"),
        (["--out", "a", "--user", "root x", "--ssh-key", "none"], "--user root x: expected"),
        (["--out", "a", "--ssh-key", "/none"], "/none: cannot be read"),
        (["--out", "a", "--ssh-key", "/proc/self/status"], "no public key in one line"),
        (["--out", "a", "--settings", "/none"], "/none/node.toml: cannot be read"),
        (["--out", "a", "--sha256", "00"], "it is not what was published"),
        (["--device", "/none"], "/none: cannot be used: No such file"),
        (["--device", "/dev/null"], "/dev/null: no block device"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(make_card, flatrack, words, tmp_path, more, said):
    (tmp_path / "stock.img.xz").write_bytes(b"short")
    code, output = flatrack(*words, *more)
    assert code == 2
    assert said in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("board", ["jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin"])
def test_nvidias_command_is_printed_with_what_is_documented_and_what_is_not(flatrack, board):
    code, said = flatrack("flash-command", board, "--node", "sat-07")
    assert code == 0
    assert "Linux_for_Tegra" in said
    assert "sudo ./tools/kernel_flash/l4t_initrd_flash.sh" in said or "sudo ./flash.sh" in said
    assert "never run by us" in said
    assert "not verified" in said
    assert "flatrack board deploy sat-07" in said
