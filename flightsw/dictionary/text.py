"""Values as people write them: arguments of a command line, by the types of the dictionary.

| type | written |
|---|---|
| bool | `true`, `false` |
| integers | `17`, `0x11` |
| f64 | `0.5`, `1e-3` |
| text, enum | as it is |
| bytes | hexadecimal digits, or `@FILE` for what is in a file |
| list | JSON; a byte string in it is `{"hex": "00ff"}` |

`parse_value` and `format_value` are inverses for every value that `check_value` accepts, but for `@FILE`.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from flightsw.dictionary.model import RANGES, CommandSpec, ValueSpec
from flightsw.dictionary.values import check_value
from flightsw.errors import ConfigError

TRUTHS: Final = {"true": True, "false": False}
HEX: Final = "hex"
NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
SUGGESTIONS_MAX: Final = 3
"""Names that a message suggests: more is no help."""

ReadFile = Callable[[str], bytes]
"""Gives the content of a file for `@FILE`. May raise OSError."""


def parse_arguments(spec: CommandSpec, words: Sequence[str], read_file: ReadFile) -> list[Any]:
    """The arguments of a command from words of a command line, positional or `name=value`.

    Args:
        spec: the command.
        words: as typed. What looks like a name before the first `=` must be one: `text=a=b` gives `a=b` as a text.
        read_file: for `@FILE`.

    Raises:
        ConfigError: an argument is missing, there twice, too many or wrong; names it.
    """
    names = [one.name for one in spec.arguments]
    words_of: dict[str, str] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or name not in names:
            if sign and NAME.fullmatch(name):
                raise ConfigError(f"{spec.key}: {name} is no argument, expected {usage(spec)}")
            free = [one for one in names if one not in words_of]
            if not free:
                raise ConfigError(f"{spec.key}: {word!r} is one argument too many, expected {usage(spec)}")
            name, text = free[0], word
        if name in words_of:
            raise ConfigError(f"{spec.key}: {name} is there twice, expected once")
        words_of[name] = text
    missing = [name for name in names if name not in words_of]
    if missing:
        raise ConfigError(f"{spec.key}: {missing[0]} is missing, expected {usage(spec)}")
    values = []
    for one in spec.arguments:
        try:
            values.append(parse_value(one, words_of[one.name], read_file))
        except ConfigError as error:
            raise ConfigError(f"{spec.key}: {error}") from None
    return values


def parse_value(spec: ValueSpec, text: str, read_file: ReadFile) -> Any:
    """A value from its text.

    Raises:
        ConfigError: it is none of this type and range; names the value's name, text and expectation.
    """
    try:
        value = _parsed(spec, text, read_file)
    except OSError as error:
        raise ConfigError(f"{spec.name} is {text!r}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{spec.name} is {text!r}, expected {kind_text(spec)}") from None
    wrong = check_value(spec, value)
    if wrong is not None:
        raise ConfigError(wrong)
    return value


def format_value(spec: ValueSpec, value: Any) -> str:
    """The text of a value that `check_value` accepts."""
    if spec.type == "bool":
        return "true" if value else "false"
    if spec.type == "f64":
        return repr(float(value))
    if spec.type == "bytes":
        return bytes(value).hex()
    if spec.type == "list":
        return json.dumps(_to_json(value), ensure_ascii=False)
    return str(value)


def usage(spec: CommandSpec) -> str:
    """How a command's arguments are written: `job=u64 attempt=u64`."""
    return " ".join(f"{one.name}={kind_text(one)}" for one in spec.arguments) or "none"


def kind_text(spec: ValueSpec) -> str:
    """What may stand for a value, for messages."""
    if spec.type == "enum":
        return "|".join(spec.values)
    return {"bool": "true|false", "bytes": "hexadecimal digits or @FILE", "list": "a JSON list"}.get(
        spec.type, spec.type
    )


def near(name: str, names: Iterable[str]) -> str:
    """What somebody may have meant, for messages."""
    known = sorted(names)
    close = difflib.get_close_matches(name.upper(), known, n=SUGGESTIONS_MAX)
    if not close:
        component = name.upper().partition(".")[0]
        close = [one for one in known if one.startswith(f"{component}.")]
    if not close:
        close = sorted({one.partition(".")[0] + ".*" for one in known})
    return f"one of {', '.join(close)}"


def _parsed(spec: ValueSpec, text: str, read_file: ReadFile) -> Any:
    kind = spec.type
    if kind == "bool":
        if text not in TRUTHS:
            raise ValueError
        return TRUTHS[text]
    if kind in RANGES:
        return int(text, 16) if text.removeprefix("-").startswith("0x") else _decimal(text)
    if kind == "f64":
        return float(text)
    if kind == "bytes":
        return read_file(text[1:]) if text.startswith("@") else bytes.fromhex(text)
    if kind == "list":
        found = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(found, list):
            raise ValueError
        return _from_json(found)
    return text


def _decimal(text: str) -> int:
    """Digits and a sign, and nothing else that Python takes for a number."""
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
        raise ValueError
    return int(text)


def _refuse_constant(_: str) -> Any:
    raise ValueError


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {HEX: value.hex()}
    if isinstance(value, list | tuple):
        return [_to_json(one) for one in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    if isinstance(value, dict):
        if list(value) != [HEX] or not isinstance(value[HEX], str):
            raise ValueError
        return bytes.fromhex(value[HEX])
    if value is None:
        raise ValueError
    return value
