"""The two small languages of limit rules: comparisons of watchpoints, Boolean expressions of actionpoints.

    comparison = term ("<" | "<=" | ">" | ">=" | "==" | "!=") (number | text | KEY)
    term       = KEY | function "(" KEY [ "," number ] ")"
    function   = "rate" | "rise" | "steady" | "age"

    expression = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | NAME | "(" expression ")"

Nothing is ever executed: text becomes tokens, tokens become values. What is wrong is told with its column and what was
expected there.
"""

import difflib
import re
from collections.abc import Iterable
from enum import Enum, unique
from typing import Final, NamedTuple

from flightsw.errors import ConfigError

CHARACTERS_MAX: Final = 512
"""Longest expression [characters]: 16 watchpoints with long names; a longer one is two rules."""

DEPTH_MAX: Final = 16
"""Deepest nesting of an expression: nobody reads deeper, and the parser's stack stays small."""

FUNCTIONS: Final = ("rate", "rise", "steady", "age")
"""What can be asked of a channel instead of its value.

- `rate(KEY)`: its change between the last two samples [per second].
- `rise(KEY, seconds)`: its change over the last window; the window's start moves in steps of half of it.
- `steady(KEY)`: how long its value has been the same [s].
- `age(KEY)`: how long ago its last sample was taken [s].
"""

COMPARISONS: Final = ("<=", ">=", "==", "!=", "<", ">")
WORDS: Final = ("and", "or", "not")

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<sign><=|>=|==|!=|<|>|\(|\)|,))""",
    re.VERBOSE,
)


@unique
class Result(Enum):
    """Of a watchpoint or an expression (LC: FALSE, TRUE, STALE, ERROR)."""

    FALSE = 0
    TRUE = 1
    STALE = 2
    ERROR = 3


class And(NamedTuple):
    """TRUE when all are."""

    terms: tuple["Expression", ...]


class Or(NamedTuple):
    """TRUE when one is."""

    terms: tuple["Expression", ...]


class Not(NamedTuple):
    """TRUE when the other is FALSE."""

    term: "Expression"


Expression = And | Or | Not | int
"""A watchpoint stands as its bit."""


class Comparison(NamedTuple):
    """What a watchpoint compares."""

    function: str
    """One of `FUNCTIONS`; empty for the value itself."""
    key: str
    """Of the channel."""
    window_s: float
    """Of `rise` [s]; 0 for others."""
    sign: str
    """One of `COMPARISONS`."""
    threshold: float | str
    """Number, or text."""
    parameter: str
    """Key of the parameter that holds the threshold; empty when it is written."""


class _Token(NamedTuple):
    kind: str
    """number, name, text, sign, or end."""
    text: str
    column: int
    """From 1."""


def evaluate(expression: Expression, true: int, stale: int, error: int) -> Result:
    """The value of an expression, given the bits of the watchpoints that are TRUE, STALE and ERROR; others are FALSE.

    FALSE dominates AND and TRUE dominates OR, even when the other side is STALE or ERROR; then ERROR goes before STALE
    (cFS LC, `lc_action.c` LC_EvaluateRPN).
    """
    if isinstance(expression, int):
        if true & expression:
            return Result.TRUE
        if stale & expression:
            return Result.STALE
        return Result.ERROR if error & expression else Result.FALSE
    if isinstance(expression, Not):
        found = evaluate(expression.term, true, stale, error)
        return _INVERTED.get(found, found)
    results = [evaluate(term, true, stale, error) for term in expression.terms]
    dominant, neutral = _DOMINANT[type(expression)]
    for one in (dominant, Result.ERROR, Result.STALE):
        if one in results:
            return one
    return neutral


_INVERTED: Final = {Result.TRUE: Result.FALSE, Result.FALSE: Result.TRUE}
_DOMINANT: Final[dict[type, tuple[Result, Result]]] = {
    And: (Result.FALSE, Result.TRUE),
    Or: (Result.TRUE, Result.FALSE),
}


def parse_comparison(text: str, where: str) -> Comparison:
    """The comparison of a watchpoint.

    Raises:
        ConfigError: it is none; names where, the column, what is there and what was expected.
    """
    reader = _Reader(text, where)
    function, window_s = "", 0.0
    key = reader.name("a channel or one of " + ", ".join(FUNCTIONS))
    if reader.next_is("("):
        if key.text not in FUNCTIONS:
            raise reader.wrong(key, f"a function: {', '.join(FUNCTIONS)}", FUNCTIONS)
        function, key = key.text, reader.name("a channel")
        if function == "rise":
            reader.sign(",", "a comma, then the window in seconds")
            token = reader.take()
            if token.kind != "number" or not 0 < float(token.text) <= 1e6:
                raise reader.wrong(token, "a window of more than 0 and at most 1e6 seconds")
            window_s = float(token.text)
        reader.sign(")", "a closing parenthesis")
    sign = reader.take()
    if sign.text not in COMPARISONS or sign.kind != "sign":
        raise reader.wrong(sign, f"one of {', '.join(COMPARISONS)}")
    value = reader.take()
    threshold: float | str = 0.0
    parameter = ""
    if value.kind == "number":
        threshold = float(value.text)
        if abs(threshold) > 1e300:
            raise reader.wrong(value, "a number of at most 1e300")
    elif value.kind == "text":
        threshold = value.text[1:-1]
    elif value.kind == "name":
        parameter = value.text
    else:
        raise reader.wrong(value, "a number, a text in quotes, or a parameter")
    reader.end()
    return Comparison(function, key.text, window_s, sign.text, threshold, parameter)


def parse_expression(text: str, bits: dict[str, int], where: str) -> Expression:
    """The Boolean expression of an actionpoint.

    Args:
        text: as written.
        bits: name of a watchpoint -> its bit.
        where: for errors.

    Raises:
        ConfigError: it is none; names where, the column, what is there and what was expected.
    """
    reader = _Reader(text, where)
    found = _disjunction(reader, bits, 0)
    reader.end()
    return found


def bits_of(expression: Expression) -> int:
    """The bits of all watchpoints in an expression."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Not):
        return bits_of(expression.term)
    bits = 0
    for term in expression.terms:
        bits |= bits_of(term)
    return bits


def near(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing when no known name is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _disjunction(reader: "_Reader", bits: dict[str, int], depth: int) -> Expression:
    terms = [_conjunction(reader, bits, depth)]
    while reader.next_is("or"):
        terms.append(_conjunction(reader, bits, depth))
    return terms[0] if len(terms) == 1 else Or(tuple(terms))


def _conjunction(reader: "_Reader", bits: dict[str, int], depth: int) -> Expression:
    terms = [_negation(reader, bits, depth)]
    while reader.next_is("and"):
        terms.append(_negation(reader, bits, depth))
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _negation(reader: "_Reader", bits: dict[str, int], depth: int) -> Expression:
    token = reader.take()
    if depth > DEPTH_MAX:
        raise reader.wrong(token, f"at most {DEPTH_MAX} levels")
    if token.text == "not":
        return Not(_negation(reader, bits, depth + 1))
    if token.text == "(" and token.kind == "sign":
        inner = _disjunction(reader, bits, depth + 1)
        reader.sign(")", "and, or, or a closing parenthesis")
        return inner
    if token.kind != "name" or token.text in WORDS:
        raise reader.wrong(token, "a watchpoint, not, or an opening parenthesis")
    if token.text not in bits:
        raise reader.wrong(token, f"a watchpoint: {', '.join(bits) or 'none is defined'}", bits)
    return bits[token.text]


class _Reader:
    """Tokens of a text, one after the other."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        if len(text) > CHARACTERS_MAX:
            raise ConfigError(f"{where}: {len(text)} characters, expected at most {CHARACTERS_MAX}")
        self._tokens: list[_Token] = []
        self._next = 0
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                column = at + 1 + len(text[at:]) - len(text[at:].lstrip())
                raise ConfigError(f"{where}, column {column}: {text[column - 1]!r} has no meaning here")
            kind = str(match.lastgroup)
            self._tokens.append(_Token(kind, match[kind], match.start(kind) + 1))
            at = match.end()
        self._tokens.append(_Token("end", "", len(text.rstrip()) + 1))

    def take(self) -> _Token:
        """The next token."""
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def next_is(self, text: str) -> bool:
        """Whether the next token is this word or sign; takes it then."""
        token = self._tokens[self._next]
        if token.kind not in ("name", "sign") or token.text != text:
            return False
        self._next += 1
        return True

    def name(self, expected: str) -> _Token:
        """The next token, which is a name. Raises: ConfigError."""
        token = self.take()
        if token.kind != "name" or token.text in WORDS:
            raise self.wrong(token, expected)
        return token

    def sign(self, text: str, expected: str) -> None:
        """Take a sign. Raises: ConfigError."""
        if not self.next_is(text):
            raise self.wrong(self.take(), expected)

    def end(self) -> None:
        """Nothing follows. Raises: ConfigError."""
        token = self.take()
        if token.kind != "end":
            raise self.wrong(token, "the end")

    def wrong(self, token: _Token, expected: str, known: Iterable[str] = ()) -> ConfigError:
        """What to raise about a token."""
        found = "the end" if token.kind == "end" else repr(token.text)
        return ConfigError(
            f"{self._where}, column {token.column}: {found} is there, expected {expected}{near(token.text, known)}"
        )
