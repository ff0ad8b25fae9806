"""The command dictionary: what a node can be told, with the types of its arguments.

Its digest is in every beacon, so that a ground segment with another dictionary notices before it commands.
"""

import hashlib
from typing import Final

COMPONENTS: Final = ("NODE", "MODE", "JOBS", "OBJECTS", "KEYS")
"""Components that take commands; each answers NOOP and RESET_COUNTERS."""

COMMANDS: Final[dict[str, tuple[tuple[str, type], ...]]] = {
    **{f"{component}.NOOP": () for component in COMPONENTS},
    **{f"{component}.RESET_COUNTERS": () for component in COMPONENTS},
    "NODE.RESET": (),
    "MODE.SAFE": (),
    "MODE.NOMINAL": (),
    "JOBS.SUBMIT": (("spec", list),),
    "JOBS.CANCEL": (("job_id", int), ("attempt", int)),
    "OBJECTS.REMOVE": (("digest", bytes),),
    "KEYS.LOAD": (("key_id", int), ("wrapped_key", bytes)),
    "KEYS.ACTIVATE": (("key_id", int),),
    "KEYS.DEACTIVATE": (("key_id", int),),
    "KEYS.DESTROY": (("key_id", int),),
    "KEYS.VERIFY": (("key_id", int), ("challenge", bytes)),
}
"""Opcode -> (argument name, type), ..."""


def dictionary_digest() -> bytes:
    """BLAKE2b-64 over opcodes and argument types in dictionary order."""
    text = ";".join(
        f"{opcode}({','.join(f'{name}:{kind.__name__}' for name, kind in arguments)})"
        for opcode, arguments in sorted(COMMANDS.items())
    )
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


DICTIONARY_DIGEST: Final = dictionary_digest()


def check_arguments(opcode: str, arguments: tuple[object, ...]) -> str | None:
    """What is wrong with a command's arguments, or None."""
    expected = COMMANDS[opcode]
    if len(arguments) != len(expected):
        return f"{opcode}: {len(arguments)} arguments, expected {len(expected)}"
    for (name, kind), value in zip(expected, arguments, strict=True):
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return f"{opcode}: {name} is {type(value).__name__}, expected {kind.__name__}"
    return None
