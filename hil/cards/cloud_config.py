"""The files by which cloud-init configures a board at its first boot: user-data, meta-data, network-config.

They are YAML that is JSON too, so that names and keys need no quoting rules of their own. cloud-init itself does
little: host name, one user, and a service that installs the node (`hil.cards.first_boot`).

| file | source |
|---|---|
| `user-data` | cloud-init, "Cloud config examples" and the module reference |
| `meta-data` | cloud-init, data source NoCloud; a new `instance-id` makes a board that has booted before begin again |
| `network-config` | cloud-init, "Networking config version 2" |

Where Raspberry Pi OS looks for them: pi-gen, stage2/04-cloud-init (`seedfrom: file:///boot/firmware`).
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from hil.inventory import board_side

USER_DATA: Final = "user-data"
META_DATA: Final = "meta-data"
NETWORK_CONFIG: Final = "network-config"
MOUNTED: Final = "/boot/firmware"
"""Where the board has its boot partition, since Debian 12."""
FOLDER: Final = "flatrack"
"""What is ours on the boot partition."""
SERVICE: Final = board_side.FIRST_BOOT_UNIT
GROUPS: Final = ("dialout", "video", "gpio", "i2c", "sudo")
"""Of the user: serial ports, vcgencmd, pins, sensors; the first user of a stock image has them too."""

SERVICE_TEXT: Final = f"""\
# Installs the release that lies on the boot partition, once.
[Unit]
Description=flatrack: first boot of a prepared card
RequiresMountsFor={MOUNTED}
ConditionPathExists={MOUNTED}/{FOLDER}/request.json

[Service]
Type=oneshot
WorkingDirectory={MOUNTED}/{FOLDER}/program
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 -m hil.cards.first_boot {MOUNTED}/{FOLDER}
TimeoutStartSec=30min
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Login:
    """Who may log in over SSH, by key alone."""

    user: str
    key: str
    """A public key, as a line of authorized_keys."""


def user_data(name: str, login: Login | None) -> str:
    """The text of user-data.

    Args:
        name: of the node, and of its host.
        login: None where nobody may log in.
    """
    config: dict[str, Any] = {
        "hostname": name,
        "manage_etc_hosts": True,
        "ssh_pwauth": False,
        "users": [],
        "runcmd": [
            ["install", "-m", "0644", f"{MOUNTED}/{FOLDER}/{SERVICE}", "/etc/systemd/system/"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", SERVICE],
            ["systemctl", "start", "--no-block", SERVICE],
        ],
    }
    if login is not None:
        user = {
            "name": login.user,
            "groups": list(GROUPS),
            "shell": "/bin/bash",
            "lock_passwd": True,
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": [login.key],
        }
        config["users"] = [user]
        config["runcmd"].append(["systemctl", "enable", "--now", "ssh"])
    return "#cloud-config\n" + _text(config)


def meta_data(name: str, instance: str) -> str:
    """The text of meta-data: this preparation is another instance than any before."""
    return _text({"dsmode": "local", "instance-id": instance, "local-hostname": name})


def network_config() -> str:
    """The text of network-config: a cable where there is one, and no waiting for it where there is none."""
    return _text({"network": {"version": 2, "ethernets": {"eth0": {"dhcp4": True, "optional": True}}}})


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
