"""The compiler of sequences: Python-looking source, checked against the dictionary, never executed.

```python
\"\"\"Eclipse preparation.\"\"\"
sequence("eclipse-prep", kind="relative", safe=True)
JOB = 17
MODE.SAFE()
wait(seconds=30)
for _ in range(2):
    JOBS.CANCEL(job=JOB, attempt=1)
    wait(minutes=1)
NODE.NOOP()
```

The source is parsed by `ast`, and only what is named here means anything: `sequence(...)` first, then commands,
`wait(...)`, `at("2026-11-21T12:00:00Z")` in absolute sequences, `if_fails(stop)` or `if_fails("continue")` once, names
with constant values, and `for` over `range` of a constant, which is unrolled. Everything else is an error that names
file, line and column, what stands there, and what was expected.

`ground.sequence_text.decompile` writes source that compiles to the same image.
"""

import ast
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Never

import msgspec

from flightsw.dictionary import CommandSpec, Dictionary, check_value
from flightsw.dictionary.sequence_file import (
    DELAY_NS_MAX,
    ENTRIES_MAX,
    LATE_S,
    LATE_S_MAX,
    NAME,
    NAME_RULE,
    UTC_NS_MAX,
    AutoStart,
    Entry,
    Header,
    Kind,
    encode_sequence,
)
from flightsw.errors import ConfigError, MessageError
from ground.sequence_text import near_miss, utc_of, utc_text

NS_PER_S: Final = 1_000_000_000

SOURCE_BYTES_MAX: Final = 262_144
"""Longest source [bytes]: 512 entries of 500 characters; the parser's memory grows with it."""
NESTING_MAX: Final = 8
"""Deepest loops in loops: more is a mistake, and `ast` walks them by recursion."""
STATEMENTS_MAX: Final = 16_384
"""Statements after loops are unrolled: far above the entries that an image holds, and a bound on empty loops."""
INTEGER_MAX: Final = (1 << 64) - 1
"""Largest magnitude of a constant: what CBOR and the dictionary hold; bounds what arithmetic can build up."""

UNITS_NS: Final = {
    "seconds": NS_PER_S,
    "minutes": 60 * NS_PER_S,
    "hours": 3_600 * NS_PER_S,
    "days": 86_400 * NS_PER_S,
}
STATEMENTS: Final = ("sequence", "wait", "at", "if_fails")
UTC_RULE: Final = 'UTC as "2026-11-21T12:00:00Z"'


def compile_source(source: str, file: str, dictionary: Dictionary) -> bytes:
    """The image of a sequence.

    Args:
        source: as the module says.
        file: its name, for errors.
        dictionary: of the nodes that are to run it.

    Raises:
        ConfigError: names file, line and column, what is there and what was expected.
    """
    if len(source.encode("utf-8", "replace")) > SOURCE_BYTES_MAX:
        raise ConfigError(f"{file}: {len(source.encode('utf-8', 'replace'))} bytes, at most {SOURCE_BYTES_MAX}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python would warn of is refused below, or is text
            module = ast.parse(source, file)
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno or 1}:{error.offset or 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{file}:1:1: cannot be parsed: {error!r}") from None
    try:
        return _Compiler(source, file, dictionary).image(module)
    except RecursionError:
        raise ConfigError(f"{file}:1:1: an expression is nested too deep") from None


@dataclass(slots=True)
class _Compiler:
    """One compilation."""

    source: str
    file: str
    dictionary: Dictionary
    header: Header | None = None
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    pending_ns: int = 0
    """Relative: waited since the last entry. Absolute: the instant of the next entry, 0 before the first `at`."""
    pending: ast.AST | None = None
    """A wait that has no entry after it yet."""
    has_policy: bool = False
    statements_count: int = 0

    def image(self, module: ast.Module) -> bytes:
        """The compiled source."""
        body = module.body
        if body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
            body = body[1:]
        self._block(body, 0)
        if self.header is None:
            raise ConfigError(f'{self.file}:1:1: no sequence, expected sequence("name", kind="relative") first')
        if self.pending is not None:
            self._fail(self.pending, "a time at the end, expected a command after it")
        if not self.entries:
            raise ConfigError(f"{self.file}:1:1: no commands, expected at least one")
        try:
            return encode_sequence(self.header, self.entries)
        except MessageError as error:
            raise ConfigError(f"{self.file}:1:1: {error}") from None

    # -- statements

    def _block(self, body: list[ast.stmt], depth: int) -> None:
        for statement in body:
            self.statements_count += 1
            if self.statements_count > STATEMENTS_MAX:
                self._fail(statement, f"more than {STATEMENTS_MAX} statements with loops unrolled")
            self._statement(statement, depth)

    def _statement(self, statement: ast.stmt, depth: int) -> None:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call):
                handlers: dict[str, Callable[[ast.Call, int], None]] = {
                    "sequence": self._sequence,
                    "wait": self._wait,
                    "at": self._at,
                    "if_fails": self._if_fails,
                }
                if name not in handlers:
                    self._fail(call, f"{name}(...), {near_miss(name, STATEMENTS)}")
                handlers[name](call, depth)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=component), attr=name)) as call):
                self._command(call, component, name)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = self._value(value)
            case ast.For(target=ast.Name(id=name), body=body, orelse=[]):
                self._loop(statement, name, body, depth)
            case ast.Pass():
                return
            case _:
                self._fail(statement, f"{self._text(statement)}, expected a command, wait, at, NAME = value or for")

    def _sequence(self, call: ast.Call, depth: int) -> None:
        if self.header is not None or self.entries or depth:
            self._fail(call, "sequence(...) again, expected it once, before all else")
        if len(call.args) != 1:
            self._fail(call, f'sequence with {len(call.args)} names, expected sequence("name", kind="relative")')
        name = self._value(call.args[0])
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self._fail(call.args[0], f"name is {name!r}, expected {NAME_RULE}")
        given = self._keywords(call, ("kind", "safe", "auto_start", "late_max_s"))
        if "kind" not in given:
            self._fail(call, 'no kind, expected kind="relative" or kind="absolute"')
        kind = self._choice(given["kind"], "kind", [one.value for one in Kind])
        auto_start = AutoStart.NEVER.value
        if "auto_start" in given:
            auto_start = self._choice(given["auto_start"], "auto_start", [one.value for one in AutoStart])
        safe = self._value(given["safe"]) if "safe" in given else False
        if not isinstance(safe, bool):
            self._fail(given["safe"], f"safe is {safe!r}, expected True or False")
        late_max_s: Any = LATE_S
        if "late_max_s" in given:
            late_max_s = self._value(given["late_max_s"])
            if kind != Kind.ABSOLUTE:
                self._fail(given["late_max_s"], "late_max_s, expected it in absolute sequences only")
            if type(late_max_s) is not int or not 0 <= late_max_s <= LATE_S_MAX:
                self._fail(given["late_max_s"], f"late_max_s is {late_max_s!r}, expected 0 to {LATE_S_MAX} s")
        self.header = Header(
            name=name,
            kind=Kind(kind),
            dictionary_digest=self.dictionary.digest,
            runs_in_safe=safe,
            auto_start=AutoStart(auto_start),
            late_max_s=late_max_s,
        )

    def _if_fails(self, call: ast.Call, depth: int) -> None:
        header = self._head(call)
        if self.has_policy or depth:
            self._fail(call, "if_fails(...) again or in a loop, expected it once: it holds for the whole sequence")
        argument = call.args[0] if len(call.args) == 1 and not call.keywords else None
        match argument:
            case ast.Name(id="stop") | ast.Constant(value="stop"):
                stops = True
            case ast.Constant(value="continue"):
                stops = False
            case _:
                self._fail(argument or call, f'{self._text(argument or call)}, expected stop or "continue"')
        self.has_policy = True
        self.header = msgspec.structs.replace(header, stops_on_failure=stops)

    def _wait(self, call: ast.Call, _: int) -> None:
        header = self._head(call)
        if call.args:
            self._fail(call.args[0], "wait without a unit, expected wait(seconds=...), minutes, hours or days")
        wait_ns = 0
        for unit, node in self._keywords(call, tuple(UNITS_NS)).items():
            amount = self._value(node)
            if type(amount) not in (int, float) or not 0 <= amount <= DELAY_NS_MAX / NS_PER_S:
                self._fail(node, f"{unit} is {amount!r}, expected 0 or more, 30 days at most")
            wait_ns += self._exact_ns(node, amount, UNITS_NS[unit])
        if not call.keywords:
            self._fail(call, "wait(), expected wait(seconds=...), minutes, hours or days")
        if header.kind is Kind.ABSOLUTE and not self.pending_ns:
            self._fail(call, "wait before the first at(...), expected at(...) first")
        self.pending_ns += wait_ns
        self.pending = call
        most_ns = DELAY_NS_MAX if header.kind is Kind.RELATIVE else UTC_NS_MAX
        if self.pending_ns > most_ns:
            self._fail(call, f"waits of {self.pending_ns // NS_PER_S} s in all, at most {most_ns // NS_PER_S} s")

    def _at(self, call: ast.Call, _: int) -> None:
        header = self._head(call)
        if header.kind is not Kind.ABSOLUTE:
            self._fail(call, 'at(...) in a relative sequence, expected wait(...), or kind="absolute"')
        if len(call.args) != 1 or call.keywords:
            self._fail(call, f"{self._text(call)}, expected at({UTC_RULE.removeprefix('UTC as ')})")
        text = self._value(call.args[0])
        utc_ns = utc_of(text) if isinstance(text, str) else None
        if utc_ns is None:
            self._fail(call.args[0], f"{text!r}, expected {UTC_RULE}, 1970 to 2262")
        if utc_ns < self.pending_ns:
            self._fail(call.args[0], f"{text!r} is before {utc_text(self.pending_ns)}, expected times in order")
        self.pending_ns = utc_ns
        self.pending = call

    def _loop(self, statement: ast.For, name: str, body: list[ast.stmt], depth: int) -> None:
        match statement.iter:
            case ast.Call(func=ast.Name(id="range"), args=[count], keywords=[]):
                most = self._value(count)
            case _:
                self._fail(statement.iter, f"{self._text(statement.iter)}, expected range(count)")
        if type(most) is not int or not 0 <= most <= STATEMENTS_MAX:
            self._fail(statement.iter, f"range of {most!r}, expected 0 to {STATEMENTS_MAX}")
        if depth >= NESTING_MAX:
            self._fail(statement, f"loops {depth + 1} deep, at most {NESTING_MAX}")
        for turn in range(most):
            self.names[name] = turn
            self._block(body, depth + 1)

    def _command(self, call: ast.Call, component: str, name: str) -> None:
        header = self._head(call)
        parts = self.dictionary.components
        if component not in parts:
            self._fail(call, f"component {component}, {near_miss(component, parts)}")
        spec = parts[component].commands.get(name)
        if spec is None:
            self._fail(call, f"command {component}.{name}, {near_miss(name, parts[component].commands)}")
        if header.kind is Kind.ABSOLUTE and not self.pending_ns:
            self._fail(call, f"{spec.key} before the first at(...), expected at(...) first")
        if len(self.entries) >= ENTRIES_MAX:
            self._fail(call, f"more than {ENTRIES_MAX} commands")
        self.entries.append(Entry(self.pending_ns, spec.key, self._arguments(call, spec)))
        if header.kind is Kind.RELATIVE:
            self.pending_ns = 0
        self.pending = None

    def _arguments(self, call: ast.Call, spec: CommandSpec) -> tuple[Any, ...]:
        wanted = {one.name: one for one in spec.arguments}
        usage = f"{spec.key}({', '.join(f'{one.name}: {one.type}' for one in spec.arguments)})"
        if len(call.args) > len(wanted):
            self._fail(call.args[len(wanted)], f"{len(call.args)} arguments, expected {usage}")
        given: dict[str, ast.expr] = dict(zip(wanted, call.args, strict=False))
        for name, node in self._keywords(call, tuple(wanted)).items():
            if name in given:
                self._fail(node, f"{name} twice, expected {usage}")
            given[name] = node
        values = []
        for name, one in wanted.items():
            if name not in given:
                self._fail(call, f"{name} is missing, expected {usage}")
            value = self._value(given[name])
            wrong = check_value(one, value)
            if wrong is not None:
                self._fail(given[name], f"{spec.key}: {wrong}")
            values.append(value)
        return tuple(values)

    # -- values

    def _value(self, node: ast.expr) -> Any:
        """The constant that an expression says."""
        match node:
            case ast.Constant(value=bool() | str() | bytes() as value):
                return value
            case ast.Constant(value=int() | float() as number):
                return self._bounded(node, number)
            case ast.Name(id=name):
                if name not in self.names:
                    self._fail(node, f"name {name}, {near_miss(name, self.names) if self.names else 'never set'}")
                return self.names[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item) for item in items]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._bounded(node, -self._number(operand))
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() as op, right=right):
                return self._arithmetic(node, self._number(left), op, self._number(right))
        return self._fail(node, f"{self._text(node)}, expected a constant")

    def _arithmetic(self, node: ast.expr, left: float, op: ast.operator, right: float) -> Any:
        match op:
            case ast.Add():
                return self._bounded(node, left + right)
            case ast.Sub():
                return self._bounded(node, left - right)
            case ast.Mult():
                return self._bounded(node, left * right)
        if right == 0:
            self._fail(node, "division by 0")
        return self._bounded(node, left // right)

    def _number(self, node: ast.expr) -> Any:
        value = self._value(node)
        if type(value) not in (int, float):
            self._fail(node, f"{self._text(node)}, expected a number")
        return value

    def _bounded(self, node: ast.expr, number: float) -> Any:
        if not abs(number) <= INTEGER_MAX:  # also what is not a number
            self._fail(node, f"{self._text(node)} is beyond {INTEGER_MAX}")
        return number

    def _exact_ns(self, node: ast.expr, amount: float, unit_ns: int) -> int:
        """A time in nanoseconds: a decimal fraction means what is written, not the float next to it."""
        if isinstance(node, ast.Constant) and isinstance(amount, float):
            written = self._text(node).replace("_", "")
            whole, _, fraction = written.partition(".")
            if whole.isdigit() and fraction.isdigit() and len(fraction) <= 9:
                return (int(whole) * 10**9 + int(fraction.ljust(9, "0"))) * unit_ns // 10**9
        return round(amount * unit_ns)

    # -- errors

    def _head(self, call: ast.Call) -> Header:
        if self.header is None:
            self._fail(call, f'{self._text(call)}, expected sequence("name", kind="relative") first')
        return self.header

    def _keywords(self, call: ast.Call, known: tuple[str, ...]) -> dict[str, ast.expr]:
        found: dict[str, ast.expr] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                self._fail(keyword.value, "**, expected arguments by name")
            if keyword.arg not in known:
                hint = near_miss(keyword.arg, known) if known else "expected no arguments"
                self._fail(keyword.value, f"argument {keyword.arg}, {hint}")
            found[keyword.arg] = keyword.value
        return found

    def _choice(self, node: ast.expr, what: str, known: list[str]) -> str:
        value = self._value(node)
        if value not in known:
            hint = near_miss(value, known) if isinstance(value, str) else f"expected one of {', '.join(known)}"
            self._fail(node, f"{what} is {value!r}, {hint}")
        return str(value)

    def _text(self, node: ast.AST) -> str:
        """What stands there, in short."""
        text = (ast.get_source_segment(self.source, node) or type(node).__name__).splitlines()[0]
        return text if len(text) <= 60 else f"{text[:57]}..."

    def _fail(self, node: ast.AST, what: str) -> Never:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        lines = self.source.split("\n")
        before = lines[line - 1].encode()[:offset] if line <= len(lines) else b""
        raise ConfigError(f"{self.file}:{line}:{len(before.decode('utf-8', 'replace')) + 1}: {what}")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
