"""The compiler of sequences: what it takes, what it refuses with which words, and that text and image are one."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.dictionary import CommandSpec, ValueSpec, flight_dictionary
from flightsw.dictionary.sequence_file import (
    DELAY_NS_MAX,
    ENTRIES_MAX,
    LATE_S_MAX,
    UTC_NS_MAX,
    AutoStart,
    Entry,
    Header,
    Kind,
    SequenceImage,
    encode_sequence,
    objection,
)
from flightsw.errors import ConfigError, MessageError
from ground.sequence_text import decompile, utc_of, utc_text
from ground.sequences import INTEGER_MAX, SOURCE_BYTES_MAX, compile_source

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "sequences"
DICTIONARY = flight_dictionary()
RELATIVE = 'sequence("s", kind="relative")\n'
ABSOLUTE = 'sequence("s", kind="absolute")\n'
NS_PER_S = 1_000_000_000


def compiled(source: str) -> SequenceImage:
    return SequenceImage(compile_source(source, "a.seq", DICTIONARY))


def test_delays_commands_arguments_and_unrolled_loops_are_compiled() -> None:
    image = compiled(
        '"""A note."""\n'
        'sequence("eclipse-prep", kind="relative", safe=True, auto_start="always")\n'
        'if_fails("continue")\n'
        "FIRST = 10 * 2 - 3\n"
        "wait(seconds=1.25, minutes=1)\n"
        "for n in range(2):\n"
        "    JOBS.CANCEL(FIRST + n, attempt=n // 2)\n"
        "    wait(days=1)\n"
        "    wait(seconds=0.000000001)\n"
        'SEQUENCES.START(sequence="other")\n'
    )
    assert image.header == Header(
        "eclipse-prep", Kind.RELATIVE, DICTIONARY.digest, False, True, AutoStart.ALWAYS, 60, 3
    )
    assert image.entries() == [
        Entry(61_250_000_000, "JOBS.CANCEL", (17, 0)),
        Entry(86_400_000_000_001, "JOBS.CANCEL", (18, 0)),
        Entry(86_400_000_000_001, "SEQUENCES.START", ("other",)),
    ]
    assert objection(image, DICTIONARY) is None


def test_absolute_times_are_those_of_the_last_at_and_the_waits_since() -> None:
    image = compiled(
        'sequence("s", kind="absolute", late_max_s=5)\n'
        'at("2026-11-21T12:00:00Z")\nNODE.NOOP()\nMODE.NOOP()\nwait(seconds=2)\nNODE.NOOP()\n'
        'at("2026-11-21T12:00:02.5Z")\nNODE.NOOP()\n'
    )
    start_ns = 1_795_262_400 * NS_PER_S
    assert [entry.time_ns - start_ns for entry in image.entries()] == [0, 0, 2 * NS_PER_S, 2_500_000_000]
    assert image.header.late_max_s == 5


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("", '1:1: no sequence, expected sequence("name", kind="relative") first'),
        (RELATIVE, "1:1: no commands, expected at least one"),
        ("MODE.SAFE()\n", '1:1: MODE.SAFE(), expected sequence("name", kind="relative") first'),
        ('sequence("s")\n', '1:1: no kind, expected kind="relative" or kind="absolute"'),
        ('sequence("s", kind="relativ")\n', "1:20: kind is 'relativ', did you mean relative?"),
        ('sequence("s", kind=3)\n', "1:20: kind is 3, expected one of absolute, relative"),
        ('sequence("s", knd="relative")\n', "1:19: argument knd, did you mean kind?"),
        ('sequence("S!", kind="relative")\n', "1:10: name is 'S!', expected 1 to 32 small letters"),
        ('sequence(kind="relative")\n', "1:1: sequence with 0 names"),
        ('sequence("s", kind="relative", safe=1)\n', "1:37: safe is 1, expected True or False"),
        ('sequence("s", kind="relative", auto_start="on")\n', "1:43: auto_start is 'on', "),
        ('sequence("s", kind="relative", late_max_s=5)\n', "1:43: late_max_s, expected it in absolute"),
        ('sequence("s", kind="absolute", late_max_s=-1)\n', "1:43: late_max_s is -1, expected 0 to 86400 s"),
        (RELATIVE + RELATIVE, "2:1: sequence(...) again"),
        (RELATIVE + "MOD.SAFE()", "2:1: component MOD, did you mean MODE?"),
        (RELATIVE + "QQQ.SAFE()", "2:1: component QQQ, expected one of "),
        (RELATIVE + "MODE.SAVE()", "2:1: command MODE.SAVE, did you mean SAFE?"),
        (RELATIVE + "JOBS.CANCEL(job=17)", "2:1: attempt is missing, expected JOBS.CANCEL(job: u64, attempt: u64)"),
        (RELATIVE + "JOBS.CANCEL(1, 2, 3)", "2:19: 3 arguments, expected JOBS.CANCEL(job: u64, attempt: u64)"),
        (RELATIVE + "JOBS.CANCEL(1, job=2)", "2:20: job twice"),
        (RELATIVE + "JOBS.CANCEL(job=1, atempt=2)", "2:27: argument atempt, did you mean attempt?"),
        (RELATIVE + "MODE.SAFE(now=1)", "2:15: argument now, expected no arguments"),
        (RELATIVE + 'JOBS.PAUSE(job="17")', "2:16: JOBS.PAUSE: job is str, expected u64"),
        (RELATIVE + "JOBS.PAUSE(job=-1)", "2:16: JOBS.PAUSE: job is -1, expected u64, 0 to "),
        (RELATIVE + "JOBS.PAUSE(job=True)", "2:16: JOBS.PAUSE: job is bool, expected u64"),
        (
            RELATIVE + "TIME.STEP(offset_ns=99_000_000_000, correlation=0)",
            "2:21: TIME.STEP: offset_ns is 99000000000, expected -10000000000 to 10000000000 ns",
        ),
        (RELATIVE + "JOBS.PAUSE(**{})", "2:14: **, expected arguments by name"),
        (RELATIVE + "JOBS.PAUSE(job=JOB)", "2:16: name JOB, never set"),
        (RELATIVE + "JOB = 1\nJOBS.PAUSE(job=JOP)", "3:16: name JOP, did you mean JOB?"),
        (RELATIVE + "JOBS.PAUSE(job=1 / 2)", "2:16: 1 / 2, expected a constant"),
        (RELATIVE + 'JOBS.PAUSE(job="é" + 1)', '2:16: "é", expected a number'),
        (RELATIVE + 'SEQUENCES.START("é"), JOBS', '2:1: SEQUENCES.START("é"), JOBS, expected a command'),
        (RELATIVE + "A = 1 // 0", "2:5: division by 0"),
        (RELATIVE + "A = 2\n" + "A = A * A\n" * 7, f"8:5: A * A is beyond {INTEGER_MAX}"),
        (RELATIVE + "A = 1e400", f"2:5: 1e400 is beyond {INTEGER_MAX}"),
        (RELATIVE + "import os", "2:1: import os, expected a command"),
        (RELATIVE + "while True:\n    pass", "2:1: while True:, expected a command"),
        (RELATIVE + "open('/etc/passwd')", "2:1: open(...), expected one of at, if_fails, sequence, wait"),
        (RELATIVE + "wiat(seconds=1)", "2:1: wiat(...), did you mean wait?"),
        (RELATIVE + "wait(3)", "2:6: wait without a unit"),
        (RELATIVE + "wait()", "2:1: wait(), expected wait(seconds=...)"),
        (RELATIVE + "wait(seconds=-1)", "2:14: seconds is -1, expected 0 or more"),
        (RELATIVE + "wait(days=20)\nwait(days=20)\nNODE.NOOP()", "3:1: waits of 3456000 s in all, at most 2592000 s"),
        (RELATIVE + "NODE.NOOP()\nwait(seconds=1)", "3:1: a time at the end, expected a command after it"),
        (RELATIVE + 'at("2026-11-21T12:00:00Z")', "2:1: at(...) in a relative sequence"),
        (ABSOLUTE + "NODE.NOOP()", "2:1: NODE.NOOP before the first at(...)"),
        (ABSOLUTE + "wait(seconds=1)", "2:1: wait before the first at(...)"),
        (ABSOLUTE + 'at("2026-11-21 12:00")', "2:4: '2026-11-21 12:00', expected UTC as"),
        (ABSOLUTE + 'at("2026-02-30T12:00:00Z")', "2:4: '2026-02-30T12:00:00Z', expected UTC as"),
        (ABSOLUTE + 'at("2300-01-01T00:00:00Z")', "2:4: '2300-01-01T00:00:00Z', expected UTC as"),
        (ABSOLUTE + "at(3)", "2:4: 3, expected UTC as"),
        (
            ABSOLUTE + 'at("2026-11-21T12:00:00Z")\nNODE.NOOP()\nat("2026-11-21T11:00:00Z")\nNODE.NOOP()',
            "4:4: '2026-11-21T11:00:00Z' is before 2026-11-21T12:00:00Z, expected times in order",
        ),
        (RELATIVE + "for n in [1, 2]:\n    NODE.NOOP()", "2:10: [1, 2], expected range(count)"),
        (RELATIVE + "for n in range(-1):\n    NODE.NOOP()", "2:10: range of -1, expected 0 to 16384"),
        (RELATIVE + "for n in range(600):\n    NODE.NOOP()", f"3:5: more than {ENTRIES_MAX} commands"),
        (RELATIVE + "for n in range(9999):\n    pass\n    pass", "more than 16384 statements with loops unrolled"),
        (
            RELATIVE + "\n".join(f"{' ' * n}for a in range(1):" for n in range(9)) + f"\n{' ' * 9}pass",
            "loops 9 deep, at most 8",
        ),
        (RELATIVE + "if_fails(retry)", '2:10: retry, expected stop or "continue"'),
        (RELATIVE + "if_fails(stop)\nif_fails(stop)", "3:1: if_fails(...) again"),
        (RELATIVE + "if_fails(continue)", "2:10: "),
        (RELATIVE + "MODE.SAFE(", "2:10: "),
        ("\0", "1:"),
    ],
)
def test_what_cannot_be_is_refused_with_file_line_column_and_expectation(source: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_source(source, "a.seq", DICTIONARY)
    assert f"a.seq:{error}" in str(caught.value) or f": {error}" in str(caught.value)
    assert str(caught.value).startswith("a.seq:")
    assert "\n" not in str(caught.value)


def test_a_source_that_would_take_the_machine_is_refused() -> None:
    deep = RELATIVE + "A = " + "-" * 20_000 + "1"
    for source in (deep, RELATIVE + "#" * SOURCE_BYTES_MAX, RELATIVE + "JOBS.PAUSE(" + "[" * 5000):
        with pytest.raises(ConfigError):
            compile_source(source, "a.seq", DICTIONARY)


def test_an_image_above_16_kb_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 16384"):
        compiled(RELATIVE + f'for _ in range(512):\n    SEQUENCES.START("{"x" * 32}")\n')


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.seq")), ids=lambda path: path.stem)
def test_the_shipped_examples_compile_and_bear_their_file_names(path: Path) -> None:
    image = SequenceImage(compile_source(path.read_text(encoding="utf-8"), path.name, DICTIONARY))
    assert image.header.name == path.stem
    assert objection(image, DICTIONARY) is None


def test_instants_are_written_and_read_to_the_nanosecond() -> None:
    assert utc_text(1_795_262_400_000_000_001) == "2026-11-21T12:00:00.000000001Z"
    for utc_ns in (1, NS_PER_S, 1_795_262_400_120_000_000, UTC_NS_MAX):
        assert utc_of(utc_text(utc_ns)) == utc_ns


def value_of(spec: ValueSpec) -> st.SearchStrategy[object]:
    """Any value that the dictionary allows, small where it may be long."""
    match spec.type:
        case "bool":
            return st.booleans()
        case "enum":
            return st.sampled_from(spec.values)
        case "text":
            return st.text(max_size=min(8, spec.bytes_limit // 4))
        case "bytes":
            return st.binary(max_size=min(8, spec.bytes_limit))
        case "list":
            items = st.one_of(st.integers(0, 9), st.text(max_size=3), st.binary(max_size=3), st.booleans())
            return st.lists(items, max_size=min(3, spec.items_limit))
        case "f64":
            low = -1e18 if spec.min is None else spec.min
            return st.floats(low, 1e18 if spec.max is None else spec.max, allow_nan=False)
    widths = {"u8": (0, 8), "u16": (0, 16), "u32": (0, 32), "u64": (0, 64), "i64": (-1, 63)}
    sign, bits = widths[spec.type]
    low = (-(1 << 63) if sign else 0) if spec.min is None else math.ceil(spec.min)
    return st.integers(low, (1 << bits) - 1 if spec.max is None else math.floor(spec.max))


def command() -> st.SearchStrategy[tuple[str, tuple[object, ...]]]:
    def with_arguments(spec: CommandSpec) -> st.SearchStrategy[tuple[str, tuple[object, ...]]]:
        return st.tuples(st.just(spec.key), st.tuples(*map(value_of, spec.arguments)))

    return st.sampled_from(sorted(DICTIONARY.commands.values(), key=lambda spec: spec.number)).flatmap(with_arguments)


@st.composite
def image_bytes(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(Kind))
    commands = draw(st.lists(command(), min_size=1, max_size=6))
    if kind is Kind.RELATIVE:
        times = draw(st.lists(st.integers(0, DELAY_NS_MAX), min_size=len(commands), max_size=len(commands)))
    else:
        times = sorted(draw(st.lists(st.integers(1, UTC_NS_MAX), min_size=len(commands), max_size=len(commands))))
    header = Header(
        draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)),
        kind,
        DICTIONARY.digest,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(AutoStart)),
        draw(st.integers(0, LATE_S_MAX)) if kind is Kind.ABSOLUTE else 60,
    )
    entries = [Entry(time_ns, opcode, arguments) for time_ns, (opcode, arguments) in zip(times, commands, strict=True)]
    return encode_sequence(header, entries)


@settings(deadline=None)
@given(image_bytes())
def test_what_is_decompiled_compiles_to_the_same_image(data: bytes) -> None:
    assert compile_source(decompile(SequenceImage(data)), "again.seq", DICTIONARY) == data


@settings(deadline=None)
@given(image_bytes(), st.data())
def test_a_changed_byte_is_refused_and_the_entry_named(data: bytes, draw: st.DataObject) -> None:
    """CRC-32C finds every change within 32 bits of one another, so no single byte changes unseen."""
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = data[:at] + bytes((data[at] ^ draw.draw(st.integers(1, 255)),)) + data[at + 1 :]
    with pytest.raises(MessageError) as caught:
        SequenceImage(changed)
    image = SequenceImage(data)
    starts = image._starts
    if at >= starts[0]:
        number = sum(start <= at for start in starts)
        assert str(caught.value).startswith(f"entry {number}:")


def test_entries_that_change_places_or_come_from_another_sequence_do_not_hold() -> None:
    image = compiled(RELATIVE + "NODE.NOOP()\nMODE.NOOP()\n")
    first, second = image._starts
    head, a, b = image.image[:first], image.image[first:second], image.image[second:]
    with pytest.raises(MessageError, match="entry 1: checksum does not hold"):
        SequenceImage(head + b + a)
    other = compiled('sequence("t", kind="relative")\nNODE.NOOP()\nMODE.NOOP()\n')
    with pytest.raises(MessageError, match="entry 2: checksum does not hold"):
        SequenceImage(head + a + other.image[other._starts[1] :])
    with pytest.raises(MessageError, match="entry 2: the sequence ends at byte"):
        SequenceImage(head + a)
    with pytest.raises(MessageError, match="4 bytes after entry 2, expected none"):
        SequenceImage(image.image + b"more")


def test_a_sequence_of_another_dictionary_or_with_an_unknown_command_names_what_is_wrong() -> None:
    header = Header("s", Kind.RELATIVE, DICTIONARY.digest)
    fine = Entry(0, "NODE.NOOP", ())
    unknown = SequenceImage(encode_sequence(header, [fine, Entry(0, "NODE.EXPLODE", ())]))
    assert objection(unknown, DICTIONARY) == "entry 2: NODE.EXPLODE is not in the dictionary"
    wrong = SequenceImage(encode_sequence(header, [fine, fine, Entry(0, "JOBS.PAUSE", ("x",))]))
    assert objection(wrong, DICTIONARY) == "entry 3: JOBS.PAUSE: job is str, expected u64"
    foreign = SequenceImage(encode_sequence(Header("s", Kind.RELATIVE, bytes(8)), [fine]))
    assert objection(foreign, DICTIONARY) == f"compiled with dictionary {'00' * 8}, expected {DICTIONARY.digest.hex()}"
