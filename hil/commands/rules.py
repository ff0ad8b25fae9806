"""`flatrack rules`: checks a file of limit rules as a node would, and shows what is in it."""

from pathlib import Path

import click

from flightsw.core.limits import DEFAULT_FILE
from flightsw.dictionary.limit_rules import RuleSet, rule_set
from flightsw.errors import ConfigError


@click.group(name="rules")
def rules_group() -> None:
    """Check and show limit rules; LIMITS.LOAD takes what passes."""


@rules_group.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE against the dictionary of this software. Exit code 2 says where it does not hold."""
    rules = _load(file)
    click.echo(
        f"{file}: {rules.name}, {len(rules.rules)} rules, {len(rules.watchpoints)} watchpoints, "
        f"{len(rules.source)} bytes, digest {rules.digest.hex()}"
    )


@rules_group.command(name="show")
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_FILE)
def show(file: Path) -> None:
    """Show the rules of FILE, or those that come with the software."""
    for rule in _load(file).rules:
        actions = ", ".join(action.text for action in rule.actions) or "event only"
        times = "" if rule.persistence == 1 else f", {rule.persistence} times in a row"
        click.echo(f"{rule.name}: {rule.when}{times} -> {actions}")
        click.echo(f"    {rule.doc}")


def _load(file: Path) -> RuleSet:
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    return rule_set(source, str(file))
