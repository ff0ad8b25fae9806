"""Whether a board may be struck: only one of a bench, whose `/etc/flatrack/bench.toml` says so.

```toml
allows_faults = true
```

Images of the bench and `flatrack board deploy --bench` write the file; nothing else does.
"""

from pathlib import Path
from typing import Final

import msgspec

from flightsw.config import load_toml
from flightsw.errors import ConfigError

FILE: Final = "etc/flatrack/bench.toml"
"""Under the root of the board."""


class BenchFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The permission file."""

    allows_faults: bool = False


def check_permission(root: Path) -> None:
    """Return where faults are allowed.

    Raises:
        ConfigError: there is no permission here; says how one is given.
    """
    path = root / FILE
    if not path.exists():
        raise ConfigError(f"{path}: no such file, expected allows_faults = true; this board is of no bench")
    if not load_toml(path, BenchFile).allows_faults:
        raise ConfigError(f"{path}: allows_faults is false, expected true; this board may not be struck")
