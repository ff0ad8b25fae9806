"""Parameters: values that the ground may change while the software runs, kept over resets in two copies.

```text
          LOAD, LOAD_FILE          VALIDATE               ACTIVATE
active ──────────────────► LOADED ──────────► VALIDATED ────────────► active, version + 1
   ▲                         │  LOAD ▲──────────┘ │
   └───────── ABORT ─────────┴────────────────────┘
```

LOAD fills the inactive image, which begins as a copy of the active one; it knows names and types. VALIDATE looks at the
ranges and at the rules between parameters (`checks` of the dictionary). ACTIVATE writes both copies, then the values
are in force, then those who asked are told. The inactive image is in memory only: a reset forgets it.

Only values that somebody set are kept; all others are the defaults, which are the node's configuration where that says
something and the dictionary's where it does not. A value's validity is one of F Prime's words:

| validity | meaning |
|---|---|
| DEFAULT | nothing is kept |
| VALID | the kept value is in force |
| INVALID | the kept value does not fit this software: the default is in force |

What a software of another version kept, and this one does not know, stays on the disk and comes back with that version.
"""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum, unique
from typing import Annotated, Any, Final, TypeVar, overload

import msgspec

from flightsw.component import OK, Audit, Dump, Handler, Outcome, Report, Scalar
from flightsw.dictionary import Dictionary, ParameterKey, ParameterSpec, check_value
from flightsw.dictionary.model import RANGES, CheckSpec
from flightsw.errors import ConfigError, MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode

NAME: Final = "PARAMETERS"
STORE_NAME: Final = "parameters"
VERSION_MAX: Final = 1 << 62
"""Highest version: a higher one on the disk is damage, and must not bring the next one beyond 64 bits."""
CHANGES_SHOWN_MAX: Final = 8
"""Changes that an event names: they fit its text; the others are counted."""

T = TypeVar("T")
Image = dict[str, Any]
"""Key -> value, of parameters that somebody set."""


@unique
class Validity(StrEnum):
    """Where a value comes from. Source of the words: F Prime, `Fw/Prm`."""

    DEFAULT = "DEFAULT"
    VALID = "VALID"
    INVALID = "INVALID"


@unique
class Inactive(StrEnum):
    """The inactive image."""

    NONE = "NONE"
    LOADED = "LOADED"
    VALIDATED = "VALIDATED"


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    """What is on the disk, as a CBOR array."""

    version: Annotated[int, msgspec.Meta(ge=0, le=VERSION_MAX)]
    values: dict[str, Any]


class Parameters:
    """The parameters of a node; implements `flightsw.component.Component`.

    Args:
        disk: keeps them.
        dictionary: says which there are.
        initial: key -> default of this node, instead of the dictionary's.
        report: takes events.
        dump: sends a data product.
        audit: takes what was changed.

    Raises:
        ConfigError: an initial value is none of a parameter, or the defaults break a rule of the dictionary.
    """

    name = NAME

    def __init__(
        self,
        disk: Disk,
        dictionary: Dictionary,
        initial: Mapping[str, Any],
        *,
        report: Report,
        dump: Dump,
        audit: Audit,
    ) -> None:
        self._specs = dictionary.parameters
        self._checks = [check for part in dictionary.components.values() for check in part.checks]
        self._initial = dict(initial)
        self._check_initial()
        self._report = report
        self._dump = dump
        self._audit = audit
        self._copies = TwoCopies(disk, STORE_NAME)
        self._watchers: list[tuple[frozenset[str], Callable[[], None]]] = []
        self.version = 0
        self._active: Image = {}
        self._in_force: Image = {}
        """What is not the dictionary's default: the node's own defaults, and over them the active image."""
        self._unused: Image = {}
        """Kept values that this software cannot use: unknown ones, and those of `_invalid`."""
        self._invalid: dict[str, str] = {}
        """Key -> why its kept value is not in force."""
        self._inactive: Image | None = None
        self._is_validated = False
        self._digest: str | None = None
        self._lost = ""
        self._load()
        self._in_force = {**self._initial, **self._active}

    @overload
    def value(self, key: ParameterKey[T]) -> T: ...

    @overload
    def value(self, key: str) -> Any: ...

    def value(self, key: str) -> Any:
        """The value in force of a parameter, for example `MODE.safe_enter`."""
        found = self._in_force.get(key)  # asked thousands of times a second in a fleet
        return self._specs[key].default if found is None else found

    def validity(self, key: str) -> Validity:
        """Where the value in force comes from."""
        if key in self._active:
            return Validity.VALID
        return Validity.INVALID if key in self._invalid else Validity.DEFAULT

    def on_change(self, keys: Iterable[str], callback: Callable[[], None]) -> None:
        """Have a callback called after each activation that changed the value of one of these keys."""
        watched = frozenset(keys)
        unknown = sorted(watched - self._specs.keys())
        assert not unknown, f"no parameters: {', '.join(unknown)}"
        self._watchers.append((watched, callback))

    def boot(self) -> None:
        """Report what was found on the disk; once, when events can be sent."""
        if self._lost:
            self._report("PARAMETERS.LOST", self._lost[:512])
        if self._copies.repaired_count:
            self._report("PARAMETERS.REPAIRED")
        for key, reason in sorted(self._invalid.items()):
            self._report("PARAMETERS.INVALID", key, reason[:512])

    # -- the component

    def handlers(self) -> Mapping[str, Handler]:
        """The table verbs of cFE, and SET, GET, RESTORE."""
        return {
            "LOAD": lambda arguments: self._told(lambda: self._stage(_from_texts(arguments[0]), is_text=True)),
            "LOAD_FILE": lambda arguments: self._told(lambda: self._stage(_from_toml(arguments[0]), is_text=False)),
            "VALIDATE": lambda _: self._told(self.validate),
            "ACTIVATE": lambda _: self._told(self.activate),
            "ABORT": self._do_abort,
            "SET": lambda arguments: self._told(lambda: self.set(*arguments)),
            "GET": self._do_get,
            "DUMP": self._do_dump,
            "RESTORE": lambda arguments: self._told(lambda: self.restore(arguments[0])),
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Version, digest, counts, state of the inactive image."""
        return {
            "version": self.version,
            "digest": self.digest,
            "changed": len(self._active),
            "invalid": len(self._invalid),
            "inactive": self.inactive.value,
            "repaired": self._copies.repaired_count,
        }

    @property
    def inactive(self) -> Inactive:
        """State of the inactive image."""
        if self._inactive is None:
            return Inactive.NONE
        return Inactive.VALIDATED if self._is_validated else Inactive.LOADED

    @property
    def digest(self) -> str:
        """BLAKE2b-64 of all values in force, hexadecimal."""
        if self._digest is None:
            values = [[key, self.value(key)] for key in sorted(self._specs)]
            self._digest = hashlib.blake2b(cbor.dumps(values), digest_size=8).hexdigest()
        return self._digest

    def load(self, values: Mapping[str, Any]) -> None:
        """Put values into the inactive image: all of them, or none.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type.
        """
        self._stage(values, is_text=False)

    def validate(self) -> None:
        """Check ranges and rules of the inactive image.

        Raises:
            ConfigError: there is none, or something does not hold; names parameter, value and expectation.
        """
        image = self._inactive
        if image is None:
            raise ConfigError("no inactive image is loaded")
        self._judge(image)
        self._is_validated = True

    def activate(self) -> None:
        """Make the validated inactive image the active one, durably.

        Raises:
            ConfigError: there is none, or it is not validated.
            StorageError: the disk did not take it; the active image stands, and so does the inactive one.
        """
        if self._inactive is None or not self._is_validated:
            raise ConfigError(f"the inactive image is {self.inactive.value}, expected {Inactive.VALIDATED.value}")
        unused = {key: value for key, value in self._unused.items() if key not in self._inactive}
        self._put(self._inactive, unused)

    def abort(self) -> None:
        """Forget the inactive image."""
        self._inactive = None
        self._is_validated = False

    def set(self, key: str, text: str) -> None:
        """Load, validate and activate one value.

        Raises:
            ConfigError: key or value is wrong, or an inactive image is loaded.
            StorageError: the disk did not take it.
        """
        if self._inactive is not None:
            raise ConfigError(f"an inactive image is {self.inactive.value}: ACTIVATE or ABORT it first")
        try:
            self._stage({key: text}, is_text=True)
            self.validate()
            self.activate()
        finally:
            self.abort()

    def restore(self, group: str) -> None:
        """Back to the defaults: a group, or all with an empty name, also of what this software does not know.

        Raises:
            ConfigError: no such group, or the defaults of this group break a rule with values of another one.
            StorageError: the disk did not take it.
        """
        chosen = self._group(group)
        image = {key: value for key, value in self._active.items() if key not in chosen}
        unused = {key: value for key, value in self._unused.items() if group and key not in chosen}
        self._judge(image)
        self.abort()
        self._put(image, unused)

    def text(self, group: str) -> str:
        """A group, or all with an empty name, as TOML that `LOAD_FILE` takes.

        Raises:
            ConfigError: no such group.
        """
        lines = [f"# version {self.version}, digest {self.digest}, inactive image {self.inactive.value}"]
        for key in self._group(group):
            lines.append(f"{key} = {_shown(self.value(key))}  # {self.validity(key).value}")
            if self._inactive is not None and (staged := self._inactive.get(key, self.value(key))) != self.value(key):
                lines.append(f"# inactive: {key} = {_shown(staged)}")
        return "\n".join(lines) + "\n"

    # -- inside

    def _default(self, key: str) -> Any:
        found = self._initial.get(key)
        return self._specs[key].default if found is None else found

    def _check_initial(self) -> None:
        for key, value in self._initial.items():
            spec = self._specs.get(key)
            wrong = f"no parameter {key}" if spec is None else check_value(spec, value)
            if wrong is not None:
                raise ConfigError(f"initial value of {key}: {wrong}")
        for check in self._checks:
            if (wrong := _broken(check, self._default)) is not None:
                raise ConfigError(f"initial values: {wrong}")

    def _load(self) -> None:
        """Take over from the disk what fits."""
        try:
            content = self._copies.load()
            if content is None:
                return
            kept = msgspec.convert(cbor.loads(content), _Kept, builtin_types=(bytes,))
        except (StorageError, MessageError, msgspec.ValidationError) as error:
            self._lost = str(error)
            return
        self.version = kept.version
        for key, value in kept.values.items():
            spec = self._specs.get(key)
            if spec is None:
                self._unused[key] = value
            elif (wrong := check_value(spec, value)) is not None:
                self._refuse(key, value, wrong)
            else:
                self._active[key] = _normal(spec, value)
        while (found := self._first_broken(self._active)) is not None:
            check, wrong = found
            kept_keys = [key for key in check.order if key in self._active]
            assert kept_keys, "the defaults keep all rules"
            for key in kept_keys:
                self._refuse(key, self._active.pop(key), wrong)

    def _refuse(self, key: str, value: Any, reason: str) -> None:
        self._unused[key] = value
        self._invalid[key] = reason

    def _first_broken(self, image: Image) -> tuple[CheckSpec, str] | None:
        def effective(key: str) -> Any:
            return image[key] if key in image else self._default(key)

        for check in self._checks:
            if (wrong := _broken(check, effective)) is not None:
                return check, wrong
        return None

    def _stage(self, values: Mapping[str, Any], *, is_text: bool) -> None:
        taken: Image = {}
        for key, value in values.items():
            spec = self._specs.get(key)
            if spec is None:
                raise ConfigError(f"{key[:64]}: no such parameter")
            taken[key] = _from_text(spec, value) if is_text and isinstance(value, str) else _typed(spec, value)
        self._inactive = {**(self._active if self._inactive is None else self._inactive), **taken}
        self._is_validated = False

    def _judge(self, image: Image) -> None:
        for key, value in sorted(image.items()):
            if (wrong := check_value(self._specs[key], value)) is not None:
                raise ConfigError(f"{key}: {wrong}")
        if (found := self._first_broken(image)) is not None:
            raise ConfigError(found[1])

    def _put(self, image: Image, unused: Image) -> None:
        """Durably first, then in force, then told."""
        version = self.version + 1
        self._copies.store(cbor.dumps([version, {**unused, **image}]))
        before = {key: self.value(key) for key in self._specs}
        self.version = version
        self._active = image
        self._in_force = {**self._initial, **image}
        self._unused = unused
        self._invalid = {key: reason for key, reason in self._invalid.items() if key in unused}
        self.abort()
        self._digest = None
        changed = [key for key in sorted(self._specs) if self.value(key) != before[key]]
        changes = [f"{key}={_shown(self.value(key))}" for key in changed]
        shown = ", ".join(changes[:CHANGES_SHOWN_MAX]) or "no value changed"
        if len(changes) > CHANGES_SHOWN_MAX:
            shown += f" and {len(changes) - CHANGES_SHOWN_MAX} more"
        self._report("PARAMETERS.ACTIVATED", version, shown[:512])
        self._audit("parameters", {"version": version, "digest": self.digest, "changes": shown[:512]})
        for watched, callback in self._watchers:
            if not watched.isdisjoint(changed):
                callback()

    def _group(self, group: str) -> list[str]:
        keys = [key for key, spec in sorted(self._specs.items()) if group in ("", spec.group)]
        if not keys:
            groups = sorted({spec.group for spec in self._specs.values()})
            raise ConfigError(f"group is {group!r}, expected one of {', '.join(groups)}, or nothing for all")
        return keys

    def _told(self, act: Callable[[], None]) -> Outcome:
        """An act as a command has it: every refusal is an answer."""
        try:
            act()
        except ConfigError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error)[:512])
        except (StorageError, MessageError) as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error)[:512])
        return OK

    def _do_abort(self, _: Sequence[Any]) -> Outcome:
        self.abort()
        return OK

    def _do_get(self, arguments: Sequence[Any]) -> Outcome:
        key = arguments[0]
        if key not in self._specs:
            return Outcome(CommandCode.VALIDATION_ERROR, f"{key}: no such parameter")
        return Outcome(CommandCode.OK, f"{key} = {_shown(self.value(key))} ({self.validity(key).value})"[:512])

    def _do_dump(self, arguments: Sequence[Any]) -> Outcome:
        try:
            text = self.text(arguments[0])
        except ConfigError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error))
        return Outcome(CommandCode.OK, f"dump {self._dump(NAME, text.encode())}")


def _broken(check: CheckSpec, value: Callable[[str], Any]) -> str | None:
    """What breaks a rule between parameters, or None."""
    for low, high in zip(check.order, check.order[1:], strict=False):
        first, second = value(low), value(high)
        if first > second or (check.strict and first == second):
            relation = "below" if check.strict else "at most"
            return f"{low} is {_shown(first)}, expected {relation} {high}, {_shown(second)}"
    return None


def _from_texts(items: Sequence[Any]) -> dict[str, str]:
    """Texts KEY=VALUE as a map."""
    values = {}
    for item in items:
        key, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals:
            raise ConfigError(f"{str(item)[:64]!r}: expected KEY=VALUE")
        values[key.strip()] = text.strip()
    return values


def _from_toml(file: bytes) -> dict[str, Any]:
    """A TOML file with dotted keys, or a table for each component, as a map."""
    try:
        content = tomllib.loads(file.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    values = {}
    for component, table in content.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{component[:64]}: expected COMPONENT.name = value")
        values.update({f"{component}.{name}": value for name, value in table.items()})
    return values


def _from_text(spec: ParameterSpec, text: str) -> Any:
    """A value as a person writes it. Raises: ConfigError."""
    try:
        if spec.type == "bool":
            return {"true": True, "false": False}[text.lower()]
        if spec.type in RANGES:
            return int(text, 0)
        if spec.type == "f64":
            return float(text)
        return bytes.fromhex(text) if spec.type == "bytes" else text
    except (KeyError, ValueError):
        raise ConfigError(f"{spec.key} is {text[:64]!r}, expected {spec.type}") from None


def _typed(spec: ParameterSpec, value: Any) -> Any:
    """A value of a file or program with the type that the parameter has; its range is not looked at."""
    if spec.type == "bytes" and isinstance(value, str):
        return _from_text(spec, value)
    if spec.type == "bool":
        fits = isinstance(value, bool)
    elif spec.type in RANGES:
        fits = type(value) is int
    elif spec.type == "f64":
        fits = type(value) in (int, float)
    else:
        fits = isinstance(value, bytes if spec.type == "bytes" else str)
    if not fits:
        raise ConfigError(f"{spec.key} is {type(value).__name__}, expected {spec.type}")
    return _normal(spec, value)


def _normal(spec: ParameterSpec, value: Any) -> Any:
    return float(value) if spec.type == "f64" else value


def _shown(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return f'"{value.hex()}"' if isinstance(value, bytes) else repr(value)
