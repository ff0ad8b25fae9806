"""Prints from the dictionary its names for the type checker, `flightsw/dictionary/accessors/*.py`.

    python scripts/print_dictionary.py            # print
    python scripts/print_dictionary.py --check    # exit 1 and name the stale files

`make docs` runs it. It also makes the dictionary's page in the documents, which `print_docs.py` writes.
"""

import argparse
import builtins
import keyword
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from flightsw.dictionary import (
    CommandSpec,
    ComponentSpec,
    Dictionary,
    EventSpec,
    ParameterSpec,
    ValueSpec,
    flight_dictionary,
)
from flightsw.dictionary.model import RANGES, ChannelSpec
from flightsw.dictionary.values import range_text

FOLDER: Final = Path(__file__).parent.parent / "flightsw" / "dictionary" / "accessors"
LINE_CHARACTERS: Final = 120
PLAIN_TYPES: Final = {"bool": "bool", "f64": "float", "text": "str", "bytes": "bytes", "list": "Sequence[Any]"}
TUPLE_NAMES: Final = frozenset(("count", "index"))
"""Methods of every tuple: a field cannot have their names."""

_PACKAGE: Final = '''"""Names of the dictionary for the type checker: arguments of commands, events, keys of parameters.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""
'''

_TABLE: Final = '''"""The types of the arguments of commands.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from typing import Any, Final

from flightsw.dictionary.accessors import (
{names})

ARGUMENTS: Final[dict[str, type[Any]]] = {{
{rows}}}
"""Opcode -> the named tuple of its arguments; commands without arguments have none."""
'''


def accessors(dictionary: Dictionary) -> dict[str, str]:
    """The modules of `flightsw/dictionary/accessors`: file name -> Python."""
    parts = dictionary.components.values()
    files = {f"{_stem(part)}.py": _module(part) for part in parts}
    return {
        "__init__.py": _PACKAGE,
        "arguments.py": _table(part for part in parts if _with_arguments(part)),
    } | files


def _stem(part: ComponentSpec) -> str:
    """The module's name; the plain one would hide modules of the standard library, as `time`."""
    return f"{part.name.lower()}_names"


def _table(parts: Iterable[ComponentSpec]) -> str:
    parts = sorted(parts, key=lambda part: part.name)
    names = "".join(f"    {_stem(part)},\n" for part in parts)
    rows = "".join(
        f'    "{command.key}": {_stem(part)}.{_class(command)},\n'
        for part in parts
        for command in _with_arguments(part)
    )
    return _TABLE.format(names=names, rows=rows)


def _module(part: ComponentSpec) -> str:
    commands = _with_arguments(part)
    specs = [*part.parameters.values(), *(one for spec in (*commands, *part.events.values()) for one in spec.arguments)]
    typing = {"Final"} if part.parameters else set()
    typing |= {"NamedTuple"} if commands else set()
    typing |= {"Literal"} if any(one.type == "enum" for one in specs) else set()
    typing |= {"Any"} if any(one.type == "list" for one in specs) else set()
    abc = {"Callable"} if part.events else set()
    abc |= {"Sequence"} if any(one.type == "list" for one in specs) else set()
    blocks = [
        f'"""{part.name} for the type checker.\n\n'
        "Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.\n"
        '"""\n'
    ]
    imports = [f"from collections.abc import {', '.join(sorted(abc))}\n"] if abc else []
    imports += [f"from typing import {', '.join(sorted(typing))}\n"] if typing else []
    if part.parameters:
        imports += ["\nfrom flightsw.dictionary.model import ParameterKey\n"]
    if imports:
        blocks.append("\n" + "".join(imports))
    blocks += [_parameter(one, index == 0) for index, one in enumerate(part.parameters.values())]
    blocks += [f"\n\n{_command(one)}" for one in commands]
    blocks += [f"\n\n{_event(one)}" for one in part.events.values()]
    return "".join(blocks)


def _parameter(spec: ParameterSpec, is_first: bool) -> str:
    head = "\n" if is_first else ""
    line = f'{spec.name.upper()}: Final = ParameterKey[{_type(spec)}]("{spec.key}")\n'
    if len(line) > LINE_CHARACTERS + 1:
        line = line.replace("ParameterKey[", "ParameterKey[\n    ").replace(']("', '\n]("')
    return f"{head}{line}{_doc(spec.doc, 0)}"


def _command(spec: CommandSpec) -> str:
    lines = [f"class {_class(spec)}(NamedTuple):\n", _doc(f"{spec.key}: {spec.doc}", 4), "\n"]
    for one in spec.arguments:
        name = f"{one.name}_" if one.name in TUPLE_NAMES else _name(one.name)
        lines.append(f"    {name}: {_type(one)}\n")
        if one.doc:
            lines.append(_doc(one.doc, 4))
    return "".join(lines)


def _event(spec: EventSpec) -> str:
    names = [f"{one.name}_" if one.name == "report" else _name(one.name) for one in spec.arguments]
    typed = [f"{name}: {_type(one)}" for name, one in zip(names, spec.arguments, strict=True)]
    whole = ", ".join(["report: Callable[..., None]", "/", *typed] if typed else ["report: Callable[..., None]"])
    head = f"def {_name(spec.name.lower())}({whole}) -> None:\n"
    if len(head) > LINE_CHARACTERS:
        one_line = f"    {whole}\n"
        many = "".join(f"    {one},\n" for one in ("report: Callable[..., None]", "/", *typed))
        inside = one_line if len(one_line) <= LINE_CHARACTERS + 1 else many
        head = f"def {_name(spec.name.lower())}(\n{inside}) -> None:\n"
    call = f"    report({', '.join([chr(34) + spec.key + chr(34), *names])})\n"
    return head + _doc(f"{spec.key}: {spec.doc}", 4) + call


def _with_arguments(part: ComponentSpec) -> list[CommandSpec]:
    return [command for command in part.commands.values() if command.arguments]


def _class(spec: CommandSpec) -> str:
    return "".join(word.capitalize() for word in spec.name.split("_"))


def _name(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) or name in dir(builtins) else name


def _type(spec: ValueSpec) -> str:
    if spec.type in RANGES:
        return "int"
    if spec.type == "enum":
        return f"Literal[{', '.join(chr(34) + value + chr(34) for value in spec.values)}]"
    return PLAIN_TYPES[spec.type]


def _doc(text: str, indent: int) -> str:
    """A docstring, wrapped."""
    space = " " * indent
    lines = textwrap.wrap(text, LINE_CHARACTERS - indent - 6)
    body = f"\n{space}".join(lines)
    end = f'\n{space}"""' if len(lines) > 1 else '"""'
    return f'{space}"""{body}{end}\n'


# -- the page


def page(dictionary: Dictionary) -> str:
    """What `docs/dictionary.md` says of each component."""
    return "\n" + "\n".join(_component(part) for part in dictionary.components.values())


def _component(part: ComponentSpec) -> str:
    blocks = [f"### {part.name} ({part.number})\n\n{part.doc}\n"]
    rows = [_command_row(spec) for spec in part.commands.values()]
    blocks.append(_section("Commands", ("opcode", "arguments", "what it does"), rows))
    rows = [(f"`{one.key}`", one.severity.name, f"`{one.format}`", _cell(one.doc)) for one in part.events.values()]
    blocks.append(_section("Events", ("event", "severity", "text", "when"), rows))
    rows = [_channel_row(spec) for spec in part.channels.values()]
    blocks.append(_section("Channels", ("channel", "type", "limits", "what it is"), rows))
    rows = [
        (f"`{one.key}`", one.rate, str(one.priority), ", ".join(_short(key, part.name) for key in one.channels))
        for one in part.packets.values()
    ]
    blocks.append(_section("Packets", ("packet", "rate", "priority", "channels"), rows))
    rows = [(f"`{one.key}`", _value(one), _default(one), _cell(one.doc)) for one in part.parameters.values()]
    blocks.append(_section("Parameters", ("parameter", "type and range", "default", "what it is"), rows))
    return "\n".join(block for block in blocks if block)


def _section(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, ("---",) * len(head), *rows]
    return f"{title}:\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _command_row(spec: CommandSpec) -> tuple[str, ...]:
    marks = [word for word, is_so in (("hazardous", spec.hazardous), ("takes time", spec.takes_time)) if is_so]
    mark = f" **{', '.join(marks)}**" if marks else ""
    arguments = "; ".join(f"`{one.name}`: {_value(one)}" for one in spec.arguments) or "none"
    return (f"`{spec.key}`", arguments, _cell(spec.doc) + mark)


def _channel_row(spec: ChannelSpec) -> tuple[str, ...]:
    names = ("red_low", "yellow_low", "yellow_high", "red_high")
    limits = [f"{name.replace('_', ' ')} {_number(getattr(spec, name))}" for name in names if _has(spec, name)]
    return (f"`{spec.key}`", _value(spec), ", ".join(limits), _cell(spec.doc))


def _has(spec: ChannelSpec, name: str) -> bool:
    return getattr(spec, name) is not None


def _value(spec: ValueSpec) -> str:
    """Type, unit and range."""
    if spec.type == "enum":
        return f"enum: {', '.join(spec.values)}"
    known = range_text(spec)
    if known:
        return f"{spec.type}, {known}"
    if spec.type in ("text", "bytes") and not isinstance(spec, ChannelSpec):
        return f"{spec.type}, at most {spec.bytes_limit} bytes"
    if spec.type == "list":
        return f"list, at most {spec.items_limit} items"
    return f"{spec.type} [{spec.unit}]" if spec.unit else spec.type


def _default(spec: ParameterSpec) -> str:
    return f"{spec.default} {spec.unit}".rstrip()


def _number(value: float) -> str:
    return f"{value:,}"


def _short(key: str, component: str) -> str:
    return f"`{key.removeprefix(component + '.')}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Print, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Print the dictionary's names for the type checker.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go")
    options = parser.parse_args()
    folder: Path = options.folder
    fresh = accessors(flight_dictionary())
    held = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    stale = [name for name in sorted(fresh.keys() | held.keys()) if fresh.get(name) != held.get(name)]
    if not options.check:
        folder.mkdir(exist_ok=True)
        for name in stale:
            if name in fresh:
                (folder / name).write_text(fresh[name], encoding="utf-8")
            else:
                (folder / name).unlink()
    for name in stale:
        print(f"{folder / name}: {'stale; run make docs' if options.check else 'printed'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
