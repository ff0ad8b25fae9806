"""The dictionary: what its files may say, what a value must be, and that everybody speaks the same one."""

import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.dictionary import (
    ValueSpec,
    check_arguments,
    check_value,
    event_text,
    flight_dictionary,
    load,
)
from flightsw.dictionary.accessors.arguments import ARGUMENTS
from flightsw.dictionary.model import RANGES
from flightsw.dictionary.text import format_value, near, parse_arguments, parse_value, usage
from flightsw.errors import ConfigError
from flightsw.wire import cbor
from flightsw.wire.messages import Severity

ROOT = Path(__file__).parents[2]
DICTIONARY = flight_dictionary()

PART = """
component = "PART"
number = 200
doc = "A part."

[commands.MOVE]
code = 2
doc = "Move."
hazardous = true
arguments = [
    { name = "far", type = "u16", min = 1, max = 9, unit = "m" },
    { name = "how", type = "enum", values = ["FAST", "SLOW"] },
]

[events.MOVED]
code = 1
severity = "ACTIVITY_HI"
format = "{far} m, {digest}"
doc = "It moved."
arguments = [{ name = "far", type = "u16" }, { name = "digest", type = "bytes" }]

[channels.moves]
code = 1
type = "u64"
doc = "Moves."
yellow_high = 5
red_high = 9

[packets.FAST]
code = 1
rate = "fast"
priority = 1
doc = "Often."
channels = ["moves", "PART.cmdpc"]

[parameters.speed]
code = 1
type = "f64"
default = 1.5
min = 0
max = 3
unit = "m/s"
doc = "How fast."

[parameters.top_speed]
code = 2
type = "f64"
default = 3.0
doc = "How fast at most."

[[checks]]
order = ["PART.speed", "PART.top_speed"]
"""


def loaded(tmp_path, *texts):
    paths = []
    for index, text in enumerate(texts):
        paths.append(tmp_path / f"{index}.toml")
        paths[-1].write_text(text)
    return load(paths)


# -- the files


def test_a_file_becomes_a_component_with_keys_and_numbers(tmp_path):
    found = loaded(tmp_path, PART)
    move = found.commands["PART.MOVE"]
    assert (move.number, move.hazardous, move.takes_time) == (200 << 8 | 2, True, False)
    assert found.events["PART.MOVED"].severity is Severity.ACTIVITY_HI
    assert found.parameters["PART.speed"].group == "PART"
    assert found.packets["PART.FAST"].channels == ("PART.moves", "PART.cmdpc")


def test_every_component_has_two_commands_two_counters_and_housekeeping_that_begins_with_them(tmp_path):
    for found in (loaded(tmp_path, PART), DICTIONARY):
        for name, part in found.components.items():
            assert (part.commands["NOOP"].code, part.commands["RESET_COUNTERS"].code) == (0, 1)
            assert {"cmdpc", "cmdec"} <= part.channels.keys()
            assert part.packets["HK"].channels[:2] == (f"{name}.cmdpc", f"{name}.cmdec")


def test_housekeeping_that_no_file_declares_has_all_channels(tmp_path):
    packet = loaded(tmp_path, PART).packets["PART.HK"]
    assert packet.channels == ("PART.cmdpc", "PART.cmdec", "PART.moves")
    assert packet.rate == "slow"


def test_every_channel_of_the_flight_dictionary_is_in_some_packet():
    sent = {key for packet in DICTIONARY.packets.values() for key in packet.channels}
    assert sorted(DICTIONARY.channels.keys() - sent) == []


WRONG = [
    ("number = 200", "number = 0", "0.toml: Expected `int` >= 1 - at `$.number`"),
    ('component = "PART"', 'component = "part"', "0.toml: component is 'part', expected capitals"),
    ('doc = "A part."', 'doc = "A part."\ncolour = 1', "0.toml: Object contains unknown field `colour`"),
    ("[commands.MOVE]", "[commands.move]", "0.toml: [commands.move]: name is 'move', expected capitals"),
    ("[commands.MOVE]\ncode = 2", "[commands.MOVE]\ncode = 1", "code is 1, which RESET_COUNTERS has already"),
    (
        "[commands.MOVE]\ncode = 2",
        "[commands.MOVE]\ncode = 240",
        "0.toml: [commands.MOVE]: code: Expected `int` <= 239",
    ),
    ("[commands.MOVE]\ncode = 2", "[commands.MOVE]", "0.toml: [commands.MOVE]: code: Expected `int`, got `null`"),
    ("[commands.MOVE]", "[commands.NOOP]", "commands: NOOP is there already; every component has it"),
    ('doc = "Move."', "", "0.toml: [commands.MOVE]: doc is missing"),
    ('doc = "Move."', 'doc = "Move."\nname = "X"', "0.toml: [commands.MOVE]: name is 'X', expected none"),
    (
        "hazardous = true",
        'hazardous = "very"',
        "0.toml: [commands.MOVE]: Expected `bool`, got `str` - at `$.hazardous`",
    ),
    ('type = "u16", min = 1', 'type = "u17", min = 1', "Invalid enum value 'u17' - at `$.arguments[0].type`"),
    ("min = 1, max = 9", "min = 9, max = 1", "argument 'far': min is 9, expected at most max, 1"),
    ("min = 1, max = 9", "min = 1, max = 70000", "max is 70000, expected an integer of u16, 0 to 65535"),
    ("min = 1, max = 9", "max_bytes = 9", "max_bytes is 9, expected at least 1, for text and bytes only"),
    ('values = ["FAST", "SLOW"]', "values = []", "argument 'how': values are [], expected names for enum"),
    ('"FAST", "SLOW"', '"FAST", "FAST"', "argument 'how': values are ['FAST', 'FAST'], expected each once"),
    ('name = "how"', 'name = "far"', "argument 'far': name is there already"),
    ('name = "how"', 'name = "How"', "argument 'How': name expected in small letters"),
    ('"ACTIVITY_HI"', '"LOUD"', "0.toml: [events.MOVED]: severity is 'LOUD', expected one of FATAL, WARNING_HI"),
    ("{far} m", "{near} m", "0.toml: [events.MOVED]: format names 'near', expected names of arguments: far, digest"),
    ("{far} m", "{} m", "0.toml: [events.MOVED]: format names '', expected names of arguments: far, digest"),
    ("{far} m", "{far m", "0.toml: [events.MOVED]: format is '{far m, {digest}'"),
    ("{far} m", "{digest:d} m", "0.toml: [events.MOVED]: format is '{digest:d} m, {digest}'"),
    ("[events.MOVED]", "[events.MOVED]\nthrottle_count = 0", "[events.MOVED]: throttle is 0 in 60.0 s"),
    ("red_high = 9", "red_high = 4", "0.toml: [channels.moves]: yellow_high is 5, expected at most red_high, 4"),
    ('"u64"\ndoc = "Moves."', '"text"\ndoc = "Moves."', "[channels.moves]: text has limits or a deadband"),
    ('channels = ["moves"', 'channels = ["stops"', "[packets.FAST] of PART: PART.stops is no channel"),
    ('channels = ["moves"', 'channels = ["PART.cmdpc"', "[packets.FAST]: channels are ['PART.cmdpc', 'PART.cmdpc']"),
    ("priority = 1", "priority = 8", "0.toml: [packets.FAST]: priority is 8, expected 0 to 7"),
    ('rate = "fast"', 'rate = "often"', "0.toml: [packets.FAST]: Invalid enum value 'often'"),
    ("default = 1.5", "default = 9", "0.toml: [parameters.speed]: default: speed is 9, expected 0 to 3 m/s"),
    ("default = 1.5", 'default = "fast"', "0.toml: [parameters.speed]: default: speed is str, expected f64"),
    ("default = 1.5", "", "0.toml: [parameters.speed]: Object missing required field `default`"),
    ('"PART.top_speed"]', '"PART.bottom"]', "checks[0] of PART: order is ['PART.speed', 'PART.bottom']"),
    ('"PART.speed", ', "", "checks[0] of PART: order is ['PART.top_speed'], expected two parameters or more"),
    ("number = 200", "number = ", "0.toml: Invalid value"),
]


@pytest.mark.parametrize(("old", "new", "why"), WRONG, ids=[new for _, new, _ in WRONG])
def test_a_wrong_file_is_refused_with_file_table_field_and_expectation(tmp_path, old, new, why):
    assert PART.count(old) >= 1, "the rule under test looks at what is there"
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, PART.replace(old, new, 1))
    assert why in str(caught.value)


def test_two_files_with_one_name_or_number_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"1\.toml: component is PART, which another file has already"):
        loaded(tmp_path, PART, PART)
    other = PART.replace("PART", "OTHER")
    with pytest.raises(ConfigError, match=r"1\.toml: number is 200, which PART has already"):
        loaded(tmp_path, PART, other)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: "):
        load([tmp_path / "none.toml"])


def test_the_numbers_of_the_flight_dictionary_are_all_different():
    for kind in (
        DICTIONARY.commands,
        DICTIONARY.events,
        DICTIONARY.channels,
        DICTIONARY.packets,
        DICTIONARY.parameters,
    ):
        numbers = [spec.number for spec in kind.values()]
        assert len(set(numbers)) == len(numbers)


# -- the digest and the export


def test_the_digest_changes_with_what_is_said_and_not_with_how_it_is_explained(tmp_path):
    digest = loaded(tmp_path, PART).digest
    assert len(digest) == 8
    assert loaded(tmp_path, PART.replace('doc = "Move."', 'doc = "Go."')).digest == digest
    for old, new in (("max = 9", "max = 8"), ("code = 2", "code = 3"), ("hazardous = true", "hazardous = false")):
        assert loaded(tmp_path, PART.replace(old, new, 1)).digest != digest


def test_the_json_has_everything_by_name():
    document = msgspec.json.decode(DICTIONARY.as_json())
    assert document["digest"] == DICTIONARY.digest.hex()
    assert list(document["components"]) == list(DICTIONARY.components)
    power_cycle = document["components"]["NODE"]["commands"]["POWER_CYCLE"]
    assert (power_cycle["key"], power_cycle["hazardous"]) == ("NODE.POWER_CYCLE", True)
    assert document["components"]["NODE"]["events"]["RESET"]["severity"] == "WARNING_HI"


def test_the_names_for_the_type_checker_are_those_of_the_dictionary():
    command = [sys.executable, str(ROOT / "scripts" / "print_dictionary.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert sorted(ARGUMENTS) == sorted(key for key, spec in DICTIONARY.commands.items() if spec.arguments)
    for key, kind in ARGUMENTS.items():
        assert len(kind._fields) == len(DICTIONARY.commands[key].arguments)


def test_a_stale_file_of_names_is_named_and_printing_mends_it(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "print_dictionary.py"), "--folder", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (tmp_path / "jobs_names.py").write_text("old")
    (tmp_path / "gone_names.py").write_text("of a component that is gone")
    done = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [Path(line.split(":")[0]).name for line in done.stdout.splitlines()] == ["gone_names.py", "jobs_names.py"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, check=False).returncode == 0


SNIPPET = """
from flightsw.dictionary import ParameterKey
from flightsw.dictionary.accessors.commands_names import ARM_WINDOW_S, armed
from flightsw.dictionary.accessors.jobs_names import Cancel


def report(*event: object) -> None:
    print(event)


def value(key: ParameterKey[int]) -> int:
    return int(key)


window_s: int = value(ARM_WINDOW_S)
armed(report, "NODE.POWER_CYCLE", window_s)
Cancel(job=17, attempt=2)
"""
MISTAKES = [
    ('"NODE.POWER_CYCLE", window_s', '"NODE.POWER_CYCLE", "soon"', "has incompatible type"),
    ('"NODE.POWER_CYCLE", window_s', '"NODE.POWER_CYCLE"', "Missing positional argument"),
    ("job=17", 'job="17"', "has incompatible type"),
    ("attempt=2", "attempts=2", "Unexpected keyword argument"),
    ("window_s: int", "window_s: str", "Incompatible types in assignment"),
    ("ARM_WINDOW_S, armed", "ARM_WINDOW, armed", "has no attribute"),
]


@pytest.mark.slow
def test_a_mistake_against_the_dictionary_is_a_type_error(tmp_path):
    files = [tmp_path / "right.py"]
    files[0].write_text(SNIPPET)
    for index, (old, new, _) in enumerate(MISTAKES):
        assert SNIPPET.count(old) == 1
        files.append(tmp_path / f"wrong_{index}.py")
        files[-1].write_text(SNIPPET.replace(old, new))
    for file, why in zip(files, ["", *(why for _, _, why in MISTAKES)], strict=True):
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == (1 if why else 0), done.stdout
        assert why in done.stdout


# -- values


@pytest.mark.parametrize(
    ("spec", "value", "why"),
    [
        (ValueSpec(name="n", type="u8"), 256, "n is 256, expected u8, 0 to 255"),
        (ValueSpec(name="n", type="u8"), -1, "n is -1, expected u8, 0 to 255"),
        (ValueSpec(name="n", type="u8"), True, "n is bool, expected u8"),
        (ValueSpec(name="n", type="u8"), 1.0, "n is float, expected u8"),
        (ValueSpec(name="n", type="u64"), 1 << 64, "n is 18446744073709551616, expected u64"),
        (ValueSpec(name="n", type="i64"), -(1 << 63) - 1, "expected i64"),
        (ValueSpec(name="n", type="u8", min=3, max=5, unit="s"), 6, "n is 6, expected 3 to 5 s"),
        (ValueSpec(name="n", type="u8", min=3), 2, "n is 2, expected at least 3"),
        (ValueSpec(name="n", type="f64", max=5), 5.1, "n is 5.1, expected at most 5"),
        (ValueSpec(name="n", type="f64"), math.nan, "n is nan, expected a finite number"),
        (ValueSpec(name="n", type="f64"), math.inf, "n is inf, expected a finite number"),
        (ValueSpec(name="n", type="f64"), 10**400, "expected a finite number"),
        (ValueSpec(name="n", type="f64"), "1", "n is str, expected f64"),
        (ValueSpec(name="n", type="bool"), 1, "n is int, expected bool"),
        (ValueSpec(name="n", type="text"), b"x", "n is bytes, expected text"),
        (ValueSpec(name="n", type="text", max_bytes=3), "ää", "n has 4 bytes, expected at most 3"),
        (ValueSpec(name="n", type="text"), "\ud800", "expected text that UTF-8 can carry"),
        (ValueSpec(name="n", type="bytes", max_bytes=3), b"1234", "n has 4 bytes, expected at most 3"),
        (ValueSpec(name="n", type="bytes"), "x", "n is str, expected bytes"),
        (ValueSpec(name="n", type="enum", values=("A", "B")), "C", "n is 'C', expected one of A, B"),
        (ValueSpec(name="n", type="enum", values=("A", "B")), 1, "n is 1, expected one of A, B"),
        (ValueSpec(name="n", type="list", max_items=2), [1, 2, 3], "n has 3 items, expected at most 2"),
        (ValueSpec(name="n", type="list"), (1, {}), "n: expected numbers, truths, text, bytes and lists"),
        (ValueSpec(name="n", type="list"), [None], "n: expected numbers"),
        (ValueSpec(name="n", type="list"), [math.nan], "n: expected numbers"),
        (ValueSpec(name="n", type="list"), "x", "n is str, expected list"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(spec, value, why):
    assert why in check_value(spec, value)


def test_a_list_that_is_too_deep_is_refused():
    spec, value = ValueSpec(name="n", type="list"), [1]
    for _ in range(40):
        value = [value]
    assert "deep" in check_value(spec, value)


def test_arguments_are_counted_and_each_is_checked():
    spec = DICTIONARY.commands["JOBS.CANCEL"]
    assert check_arguments(spec, (1, 2)) is None
    assert check_arguments(spec, (1,)) == "JOBS.CANCEL: 1 arguments, expected 2: job, attempt"
    assert check_arguments(spec, (1, -2)) == "JOBS.CANCEL: attempt is -2, expected u64, 0 to 18446744073709551615"


def test_the_text_of_an_event_shows_the_first_digits_of_bytes_and_is_cut():
    rotten = DICTIONARY.events["OBJECTS.ROTTEN"]
    assert event_text(rotten, [bytes(range(32))]) == "0001020304050607 removed"
    assert len(event_text(DICTIONARY.events["NODE.BAD_MESSAGE"], ["x" * 1000])) == 512


BYTES = st.binary(max_size=40)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), NUMBERS, st.booleans(), TEXT, BYTES)


@st.composite
def specs_and_values(draw):
    kind = draw(st.sampled_from(["bool", *RANGES, "f64", "text", "bytes", "list", "enum"]))
    spec = ValueSpec(name="value", type=kind, values=("ON", "OFF", "half on") if kind == "enum" else ())
    if kind in RANGES:
        return spec, draw(st.integers(*RANGES[kind]))
    values = {
        "bool": st.booleans(),
        "f64": st.one_of(NUMBERS, st.integers(-(1 << 53), 1 << 53)),
        "text": TEXT,
        "bytes": BYTES,
        "enum": st.sampled_from(spec.values),
        "list": st.recursive(st.lists(LEAVES, max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=8),
    }
    return spec, draw(values[kind])


@given(specs_and_values())
@settings(max_examples=400, deadline=None)
def test_every_value_that_is_accepted_travels_and_can_be_written_and_read(spec_and_value):
    spec, value = spec_and_value
    assert check_value(spec, value) is None
    assert cbor.loads(cbor.dumps([value])) == [value]
    again = parse_value(spec, format_value(spec, value), no_file)
    assert again == value
    assert check_value(spec, again) is None
    assert cbor.dumps([again]) == cbor.dumps([float(value) if spec.type == "f64" else value])


@given(st.sampled_from(["bool", *RANGES, "f64", "text", "bytes", "list", "enum"]), st.text(max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_good_value_or_a_clear_refusal(kind, text):
    spec = ValueSpec(name="value", type=kind, values=("ON", "OFF") if kind == "enum" else ())
    try:
        value = parse_value(spec, text, no_file)
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = None
        assert check_value(spec, value) is None
    assert refusal is None or refusal.startswith("value")


def no_file(name):
    raise FileNotFoundError(2, "No such file or directory")


# -- as people write them


@pytest.mark.parametrize(
    ("opcode", "words", "values"),
    [
        ("JOBS.CANCEL", ["17", "2"], [17, 2]),
        ("JOBS.CANCEL", ["job=17", "attempt=2"], [17, 2]),
        ("JOBS.CANCEL", ["attempt=2", "job=17"], [17, 2]),
        ("JOBS.CANCEL", ["attempt=2", "17"], [17, 2]),
        ("JOBS.CANCEL", ["0x11", "2"], [17, 2]),
        ("OBJECTS.REMOVE", ["00ff"], [b"\x00\xff"]),
        ("OBJECTS.REMOVE", ["digest=@name"], [b"in the file"]),
        ("COMMANDS.ARM", ["opcode=a=b"], ["a=b"]),
        ("COMMANDS.ARM", ["A=b"], ["A=b"]),
        ("COMMANDS.ARM", ["opcode=NODE.POWER_CYCLE"], ["NODE.POWER_CYCLE"]),
        ("JOBS.SUBMIT", ['[1, "x", {"hex": "0a"}]'], [[1, "x", b"\x0a"]]),
        ("NODE.NOOP", [], []),
    ],
)
def test_arguments_come_by_name_or_in_order(opcode, words, values):
    assert parse_arguments(DICTIONARY.commands[opcode], words, lambda name: b"in the file") == values


@pytest.mark.parametrize(
    ("opcode", "words", "why"),
    [
        ("JOBS.CANCEL", ["17"], "JOBS.CANCEL: attempt is missing, expected job=u64 attempt=u64"),
        ("JOBS.CANCEL", ["1", "2", "3"], "JOBS.CANCEL: '3' is one argument too many"),
        ("JOBS.CANCEL", ["job=1", "job=2"], "JOBS.CANCEL: job is there twice, expected once"),
        ("JOBS.CANCEL", ["jib=1", "2"], "JOBS.CANCEL: jib is no argument, expected job=u64 attempt=u64"),
        ("JOBS.CANCEL", ["1_0", "2"], "JOBS.CANCEL: job is '1_0', expected u64"),
        ("JOBS.CANCEL", ["-1", "2"], "JOBS.CANCEL: job is -1, expected u64, 0 to"),
        ("OBJECTS.REMOVE", ["0"], "OBJECTS.REMOVE: digest is '0', expected hexadecimal digits or @FILE"),
        ("OBJECTS.REMOVE", ["@nowhere"], "OBJECTS.REMOVE: digest is '@nowhere': No such file or directory"),
        ("JOBS.SUBMIT", ["{}"], "JOBS.SUBMIT: spec is '{}', expected a JSON list"),
        ("JOBS.SUBMIT", ["[NaN]"], "JOBS.SUBMIT: spec is '[NaN]', expected a JSON list"),
        ("JOBS.SUBMIT", ["[" * 5000], "expected a JSON list"),
        ("NODE.NOOP", ["x"], "NODE.NOOP: 'x' is one argument too many, expected none"),
    ],
)
def test_a_wrong_argument_is_named(opcode, words, why):
    with pytest.raises(ConfigError) as caught:
        parse_arguments(DICTIONARY.commands[opcode], words, no_file)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [("JOBS.PUASE", "JOBS.PAUSE"), ("jobs.pause", "JOBS.PAUSE"), ("KEYS.XXXXXXXX", "KEYS.LOAD"), ("", "KEYS.*")],
)
def test_a_misspelt_opcode_is_answered_with_what_was_meant(typed, suggested):
    assert suggested in near(typed, DICTIONARY.commands)


def test_the_usage_names_types_and_choices(tmp_path):
    assert usage(loaded(tmp_path, PART).commands["PART.MOVE"]) == "far=u16 how=FAST|SLOW"
