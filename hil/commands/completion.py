"""What a shell offers while a `flatrack` command is typed: nodes, opcodes, arguments and their values.

Nodes come from the running ground when `--control` (or FLATRACK_CONTROL) names one that answers; all else from the
dictionary. `flatrack completion` prints what a shell needs for it.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class
from click.types import StringParamType

from flightsw.dictionary import CommandSpec, Dictionary, ValueSpec, flight_dictionary
from flightsw.errors import FlatrackError
from hil.commands.asking import RemoteGround

NODES_S: Final = 1.0
"""How long the ground may take to name its nodes [s]: somebody waits at the keyboard."""
PROGRAM: Final = "flatrack"
VARIABLE: Final = "_FLATRACK_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
CONTROL_VARIABLE: Final = "FLATRACK_CONTROL"

NAMES: Final[dict[str, Callable[[Dictionary], tuple[str, ...]]]] = {
    "event": lambda known: tuple(known.events),
    "opcode": lambda known: tuple(key for key, spec in known.commands.items() if spec.hazardous),
    "packet": lambda known: tuple(known.packets),
    "parameter": lambda known: tuple(known.parameters),
}
"""Text arguments that name something of the dictionary; an opcode is one to be armed."""


class NodeName(StringParamType):
    """A node's name or number."""

    name = "node"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Nodes of the running ground."""
        control = ctx.params.get("control") or os.environ.get(CONTROL_VARIABLE)
        if not control:
            return []
        try:
            names = asyncio.run(_node_names(Path(control)))
        except (FlatrackError, TimeoutError):
            return []  # a ground that does not answer has no nodes to offer
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Opcode(StringParamType):
    """COMPONENT.COMMAND."""

    name = "opcode"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Opcodes of the dictionary."""
        known = flight_dictionary().commands.values()
        start = incomplete.upper()
        return [CompletionItem(spec.key, help=spec.doc) for spec in known if spec.key.startswith(start)]


class ComponentName(StringParamType):
    """A component of the dictionary."""

    name = "component"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Components of the dictionary."""
        parts = flight_dictionary().components.values()
        return [CompletionItem(part.name, help=part.doc) for part in parts if part.name.startswith(incomplete.upper())]


class Argument(StringParamType):
    """An argument of a command, `name=value` or in order."""

    name = "argument"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names of the arguments that are not there yet, and the values that are known."""
        spec = flight_dictionary().commands.get(ctx.params.get("opcode") or "")
        if spec is None:
            return []
        words = list(ctx.params.get(str(param.name)) or ())
        arguments = {one.name: one for one in spec.arguments}
        # bash takes `=` for a word of its own: `name`, `=`, `value`
        if words[-1:] == ["="] and words[-2:-1]:
            return _values(arguments.get(words[-2]), incomplete)
        if not incomplete and words and words[-1] in arguments:
            return _values(arguments[words[-1]], "")  # behind the sign itself, which click takes away
        name, sign, text = incomplete.partition("=")
        if sign:
            return [
                CompletionItem(f"{name}={item.value}", help=item.help) for item in _values(arguments.get(name), text)
            ]
        return _names(spec, words, incomplete)


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that lets a SHELL complete what is typed after flatrack.

    For bash: eval "$(flatrack completion bash)"; for zsh: eval "$(flatrack completion zsh)"; for fish: flatrack
    completion fish | source.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows its shells"
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())


_BASH_TEMPLATE: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
    # the value comes right behind name=
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Bash, which must set no blank between `name=` and the value."""

    source_template = _BASH_TEMPLATE


add_completion_class(_Bash)


def _names(spec: CommandSpec, words: list[str], incomplete: str) -> list[CompletionItem]:
    """`name=` of the arguments that are not there yet, and known values of the next one."""
    named = {word for word in words if word in {one.name for one in spec.arguments}}
    named |= {word.partition("=")[0] for word in words if "=" in word}
    free = [one for one in spec.arguments if one.name not in named]
    items = [CompletionItem(f"{one.name}=", help=one.doc) for one in free if one.name.startswith(incomplete)]
    return items + (_values(free[0], incomplete) if free and incomplete else [])


def _values(spec: ValueSpec | None, start: str) -> list[CompletionItem]:
    if spec is None:
        return []
    values = ("true", "false") if spec.type == "bool" else spec.values
    if spec.type == "text" and spec.name in NAMES:
        values = NAMES[spec.name](flight_dictionary())
    return [CompletionItem(value) for value in values if value.startswith(start)]


async def _node_names(control: Path) -> list[str]:
    async with asyncio.timeout(NODES_S), RemoteGround(control) as ground:
        return [row["name"] for row in await ground.ask("nodes")]
