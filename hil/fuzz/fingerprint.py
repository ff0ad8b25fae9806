"""The whole observable state of a machine as one digest: equal digests mean that nothing has changed.

All that can be reached from an object is written down: attributes, slots and items in their order, itertools.count by
its value, functions by their name. What is to be left out (counts of what was refused) is named by attribute.
"""

import enum
import hashlib
from collections import deque
from collections.abc import Collection, Iterator
from itertools import count
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_LEAVES: Final = (int, float, str, bytes, bytearray, bool, type(None), enum.Enum, type, ModuleType, count, range)
_CALLABLES: Final = (FunctionType, BuiltinFunctionType, MethodType)


def fingerprint(machine: object, without: Collection[str] = ()) -> str:
    """BLAKE2b-128 of all that can be reached from an object, in hex.

    Args:
        machine: the object.
        without: names of attributes that are left out, wherever they are.
    """
    digest = hashlib.blake2b(digest_size=16)
    for line in _lines(machine, frozenset(without)):
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _lines(root: object, without: frozenset[str]) -> Iterator[str]:
    """Depth first, each object once; later meetings name its number."""
    numbers: dict[int, int] = {}
    kept: list[object] = []  # so that no number of a dead object is given again
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, _LEAVES):
            yield f"{name}={value!r}"
            continue
        if isinstance(value, _CALLABLES):
            yield f"{name}={value.__qualname__}"
            continue
        if id(value) in numbers:
            yield f"{name}=#{numbers[id(value)]}"
            continue
        numbers[id(value)] = len(numbers)
        kept.append(value)
        yield f"{name}:{type(value).__qualname__}"
        stack += reversed(list(_parts(value, without)))


def _parts(value: Any, without: frozenset[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield repr(key), item
    elif isinstance(value, set | frozenset):
        for text in sorted(map(repr, value)):
            yield text, None
    elif isinstance(value, list | tuple | deque):
        for number, item in enumerate(value):
            yield str(number), item
    else:
        slots = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
        names = [*slots, *getattr(value, "__dict__", {})]
        for name in names:
            if name not in without and hasattr(value, name):
                yield name, getattr(value, name)
