"""Parameters: what is in force is whole, in range and within the rules, over any cut, rot and change of software."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.component import OK, Outcome
from flightsw.core.parameters import Parameters, Validity
from flightsw.dictionary import Dictionary, flight_dictionary, load
from flightsw.errors import ConfigError, StorageError
from flightsw.ports import Random
from flightsw.storage.copies import TwoCopies
from flightsw.wire.messages import CommandCode
from hil.sim.faulty_disk import FaultyDisk, PowerCut

COMPONENT = """
component = "POWER"
number = 200
doc = "For tests."

[parameters.low]
code = 1
type = "f64"
default = 0.2
min = 0
max = 1
doc = "Lower threshold."

[parameters.high]
code = 2
type = "f64"
default = 0.4
min = 0
max = 1
doc = "Upper threshold."

[parameters.count]
code = 3
type = "u16"
default = 3
min = 1
max = 100
doc = "A count."

[parameters.is_on]
code = 4
type = "bool"
default = true
doc = "A truth."
group = "SWITCHES"

[parameters.style]
code = 5
type = "enum"
values = ["PLAIN", "BOLD"]
default = "PLAIN"
doc = "A word."
group = "SWITCHES"

[[checks]]
order = ["POWER.low", "POWER.high"]
strict = true
doc = "A gap."
"""


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Dictionary:
    return made(tmp_path_factory.mktemp("dictionary"), COMPONENT)


def made(folder: Path, text: str) -> Dictionary:
    path = folder / "power.toml"
    path.write_text(text, encoding="utf-8")
    return load([path])


class Bench:
    """Parameters on a disk, and what they told."""

    def __init__(
        self, dictionary: Dictionary, disk: FaultyDisk | None = None, initial: dict[str, Any] | None = None
    ) -> None:
        self.disk = FaultyDisk(1 << 20, Random(1)) if disk is None else disk
        self.events: list[tuple[Any, ...]] = []
        self.dumps: list[tuple[str, bytes]] = []
        self.audited: list[tuple[str, dict[str, object]]] = []
        self.parameters = Parameters(
            self.disk,
            dictionary,
            {} if initial is None else initial,
            report=lambda *event: self.events.append(event),
            dump=self.dump,
            audit=lambda kind, fields: self.audited.append((kind, dict(fields))),
        )

    def dump(self, kind: str, data: bytes) -> int:
        self.dumps.append((kind, data))
        return len(self.dumps)

    def do(self, command: str, *arguments: Any) -> Outcome:
        outcome = self.parameters.handlers()[command](arguments)
        assert isinstance(outcome, Outcome)
        return outcome

    def inactive(self) -> object:
        return self.parameters.channels()["inactive"]

    def values(self) -> tuple[Any, ...]:
        return tuple(self.parameters.value(f"POWER.{name}") for name in ("low", "high", "count", "is_on", "style"))


DEFAULTS = (0.2, 0.4, 3, True, "PLAIN")


def test_nothing_kept_is_the_defaults_and_a_node_has_its_own(dictionary: Dictionary) -> None:
    assert Bench(dictionary).values() == DEFAULTS
    bench = Bench(dictionary, initial={"POWER.low": 0.1})
    assert bench.parameters.value("POWER.low") == 0.1
    assert bench.parameters.validity("POWER.low") is Validity.DEFAULT
    assert bench.parameters.version == 0


def test_load_validate_activate_puts_all_values_in_force_at_once_and_keeps_them(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    assert bench.do("LOAD", ["POWER.low=0.5", "POWER.high = 0.6", "POWER.is_on=false", "POWER.style=BOLD"]) == OK
    assert bench.values() == DEFAULTS, "an inactive image changes nothing"
    assert bench.inactive() == "LOADED"
    assert bench.do("VALIDATE") == OK
    assert bench.inactive() == "VALIDATED"
    assert bench.do("ACTIVATE") == OK
    expected = (0.5, 0.6, 3, False, "BOLD")
    assert bench.values() == expected
    assert bench.inactive() == "NONE"
    again = Bench(dictionary, bench.disk)
    assert again.values() == expected
    assert again.parameters.version == 1
    assert again.parameters.validity("POWER.low") is Validity.VALID
    assert again.parameters.validity("POWER.count") is Validity.DEFAULT
    assert again.parameters.digest == bench.parameters.digest != Bench(dictionary).parameters.digest
    assert bench.audited[0][0] == "parameters"
    assert bench.events == [
        ("PARAMETERS.ACTIVATED", 1, 'POWER.high=0.6, POWER.is_on=false, POWER.low=0.5, POWER.style="BOLD"')
    ]


def test_activation_needs_validation_and_a_later_load_takes_it_back(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    assert bench.do("VALIDATE").code is CommandCode.VALIDATION_ERROR
    assert bench.do("ACTIVATE").code is CommandCode.VALIDATION_ERROR
    bench.do("LOAD", ["POWER.count=4"])
    assert bench.do("ACTIVATE").detail == "the inactive image is LOADED, expected VALIDATED"
    bench.do("VALIDATE")
    bench.do("LOAD", ["POWER.count=5"])
    assert bench.do("ACTIVATE").code is CommandCode.VALIDATION_ERROR
    assert bench.do("ABORT") == OK
    assert bench.inactive() == "NONE"
    assert bench.values() == DEFAULTS


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        ("POWER.count", "'POWER.count': expected KEY=VALUE"),
        (17, "'17': expected KEY=VALUE"),
        ("POWER.none=1", "POWER.none: no such parameter"),
        ("POWER.count=many", "POWER.count is 'many', expected u16"),
        ("POWER.low=one", "POWER.low is 'one', expected f64"),
        ("POWER.is_on=maybe", "POWER.is_on is 'maybe', expected bool"),
    ],
)
def test_a_load_with_one_bad_item_loads_nothing(dictionary: Dictionary, item: object, detail: str) -> None:
    bench = Bench(dictionary)
    assert bench.do("LOAD", ["POWER.count=4", item]) == Outcome(CommandCode.VALIDATION_ERROR, detail)
    assert bench.inactive() == "NONE"


@pytest.mark.parametrize(
    ("items", "detail"),
    [
        (["POWER.count=0"], "POWER.count: count is 0, expected 1 to 100"),
        (["POWER.count=101"], "POWER.count: count is 101, expected 1 to 100"),
        (["POWER.low=nan"], "POWER.low: low is nan, expected a finite number"),
        (["POWER.style=WILD"], "POWER.style: style is 'WILD', expected one of PLAIN, BOLD"),
        (["POWER.low=0.4"], "POWER.low is 0.4, expected below POWER.high, 0.4"),
        (["POWER.low=0.7", "POWER.high=0.6"], "POWER.low is 0.7, expected below POWER.high, 0.6"),
    ],
)
def test_a_value_out_of_range_or_against_a_rule_is_not_validated(
    dictionary: Dictionary, items: list[str], detail: str
) -> None:
    bench = Bench(dictionary)
    assert bench.do("LOAD", items) == OK
    assert bench.do("VALIDATE") == Outcome(CommandCode.VALIDATION_ERROR, detail)
    assert bench.do("ACTIVATE").code is CommandCode.VALIDATION_ERROR
    assert bench.values() == DEFAULTS


def test_set_is_all_three_steps_and_leaves_a_loaded_image_alone(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    assert bench.do("SET", "POWER.count", "0x10") == OK
    assert bench.parameters.value("POWER.count") == 16
    assert bench.do("SET", "POWER.count", "0").code is CommandCode.VALIDATION_ERROR
    assert bench.inactive() == "NONE"
    bench.do("LOAD", ["POWER.count=7"])
    refused = bench.do("SET", "POWER.count", "8")
    assert refused.detail == "an inactive image is LOADED: ACTIVATE or ABORT it first"
    assert bench.inactive() == "LOADED"
    assert bench.parameters.value("POWER.count") == 16


def test_a_dump_is_a_file_that_loads_to_the_same_values(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    bench.do("SET", "POWER.style", "BOLD")
    bench.do("SET", "POWER.low", "0.125")
    bench.do("LOAD", ["POWER.count=9"])
    assert bench.do("DUMP", "").detail == "dump 1"
    kind, data = bench.dumps[0]
    assert kind == "PARAMETERS"
    assert b"POWER.low = 0.125  # VALID\n" in data
    assert b"# inactive: POWER.count = 9\n" in data
    other = Bench(dictionary)
    assert other.do("LOAD_FILE", data) == OK
    other.do("VALIDATE")
    other.do("ACTIVATE")
    assert other.values() == bench.values()
    assert other.parameters.digest == bench.parameters.digest


@pytest.mark.parametrize("file", [b"\xff", b"POWER.count", b"count = 3", b"[POWER]\ncount = '3'", b"POWER.low = true"])
def test_a_bad_file_is_refused(dictionary: Dictionary, file: bytes) -> None:
    bench = Bench(dictionary)
    assert bench.do("LOAD_FILE", file).code is CommandCode.VALIDATION_ERROR
    assert bench.inactive() == "NONE"


def test_groups_are_dumped_and_restored_alone(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    bench.do("SET", "POWER.count", "9")
    bench.do("SET", "POWER.style", "BOLD")
    assert "POWER.count" not in bench.parameters.text("SWITCHES")
    assert bench.do("RESTORE", "SWITCHES") == OK
    assert bench.values() == (0.2, 0.4, 9, True, "PLAIN")
    assert bench.do("RESTORE", "") == OK
    assert bench.values() == DEFAULTS
    assert bench.parameters.version == 4, "a version never comes twice"
    assert bench.do("RESTORE", "NONE").detail == "group is 'NONE', expected one of POWER, SWITCHES, or nothing for all"
    assert bench.do("DUMP", "NONE").code is CommandCode.VALIDATION_ERROR


def test_get_answers_with_value_and_validity(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    assert bench.do("GET", "POWER.low").detail == "POWER.low = 0.2 (DEFAULT)"
    bench.do("SET", "POWER.low", "0.1")
    assert bench.do("GET", "POWER.low").detail == "POWER.low = 0.1 (VALID)"
    assert bench.do("GET", "POWER.none").code is CommandCode.VALIDATION_ERROR


def test_owners_are_told_once_after_the_change_and_only_of_theirs(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    told: list[Any] = []
    bench.parameters.on_change(["POWER.low", "POWER.high"], lambda: told.append(bench.values()[:2]))
    bench.do("SET", "POWER.count", "9")
    bench.do("SET", "POWER.low", "0.2")
    assert not told, "no value of theirs changed"
    bench.do("LOAD", ["POWER.low=0.5", "POWER.high=0.6"])
    bench.do("VALIDATE")
    bench.do("ACTIVATE")
    assert told == [(0.5, 0.6)]


def test_one_damaged_copy_is_mended_and_two_are_the_defaults(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    bench.do("SET", "POWER.count", "9")
    bench.disk.flip_bit("parameters.a", 99)
    again = Bench(dictionary, bench.disk)
    again.parameters.boot()
    assert again.parameters.value("POWER.count") == 9
    assert again.events == [("PARAMETERS.REPAIRED",)]
    for copy in ("parameters.a", "parameters.b"):
        bench.disk.flip_bit(copy, 99)
    third = Bench(dictionary, bench.disk)
    third.parameters.boot()
    assert third.values() == DEFAULTS
    assert third.events[0][0] == "PARAMETERS.LOST"
    assert third.do("SET", "POWER.count", "10") == OK
    assert Bench(dictionary, bench.disk).parameters.value("POWER.count") == 10


def test_a_full_disk_changes_nothing_and_says_so(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    bench.do("LOAD", ["POWER.count=9"])
    bench.do("VALIDATE")
    bench.disk.fill()
    refused = bench.do("ACTIVATE")
    assert refused.code is CommandCode.EXECUTION_ERROR
    assert "disk full" in refused.detail
    assert bench.values() == DEFAULTS
    assert bench.inactive() == "VALIDATED"
    bench.disk.unfill()
    assert bench.do("ACTIVATE") == OK
    assert bench.parameters.value("POWER.count") == 9


def test_other_software_takes_what_fits_reports_what_does_not_and_gives_it_back_later(
    dictionary: Dictionary, tmp_path: Path
) -> None:
    bench = Bench(dictionary)
    bench.do("LOAD", ["POWER.count=50", "POWER.low=0.3", "POWER.style=BOLD"])
    bench.do("VALIDATE")
    bench.do("ACTIVATE")
    newer_text = COMPONENT.replace("max = 100", "max = 40").replace("parameters.style", "parameters.look")
    newer = Bench(made(tmp_path, newer_text), bench.disk)
    newer.parameters.boot()
    assert newer.parameters.value("POWER.low") == 0.3
    assert newer.parameters.value("POWER.count") == 3
    assert newer.parameters.value("POWER.look") == "PLAIN"
    assert newer.parameters.validity("POWER.count") is Validity.INVALID
    assert newer.events == [("PARAMETERS.INVALID", "POWER.count", "count is 50, expected 1 to 40")]
    newer.do("SET", "POWER.low", "0.25")
    back = Bench(dictionary, bench.disk)
    assert back.values() == (0.25, 0.4, 50, True, "BOLD")
    newer.do("SET", "POWER.count", "7")
    assert newer.parameters.validity("POWER.count") is Validity.VALID
    assert Bench(dictionary, bench.disk).parameters.value("POWER.count") == 7


def test_kept_values_that_break_a_new_rule_are_not_in_force(dictionary: Dictionary, tmp_path: Path) -> None:
    bench = Bench(dictionary)
    bench.do("SET", "POWER.low", "0.35")
    stricter = COMPONENT.replace("default = 0.4", "default = 0.3")
    later = Bench(made(tmp_path, stricter), bench.disk)
    later.parameters.boot()
    assert later.values()[:2] == (0.2, 0.3)
    assert later.events == [("PARAMETERS.INVALID", "POWER.low", "POWER.low is 0.35, expected below POWER.high, 0.3")]


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({"POWER.none": 1}, "no parameter POWER.none"),
        ({"POWER.count": 0}, "initial value of POWER.count: count is 0"),
        ({"POWER.low": 0.5}, "POWER.low is 0.5, expected below POWER.high"),
    ],
)
def test_a_configuration_against_the_dictionary_is_an_error(
    dictionary: Dictionary, initial: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Bench(dictionary, initial=initial)


@given(st.integers(0, 2**32), st.integers(0, 8))
def test_a_power_cut_at_any_call_leaves_one_activated_image(dictionary: Dictionary, seed: int, cut_at: int) -> None:
    disk = FaultyDisk(1 << 20, Random(seed))
    bench = Bench(dictionary, disk)
    history = [bench.values()]
    disk.cut_power_at(cut_at)
    done = 0
    try:
        for low, high, count in ((0.5, 0.6, 10), (0.1, 0.15, 20), (0.8, 0.9, 30)):
            history.append((low, high, count, True, "PLAIN"))
            bench.do("LOAD", [f"POWER.low={low}", f"POWER.high={high}", f"POWER.count={count}"])
            bench.do("VALIDATE")
            assert bench.do("ACTIVATE") == OK
            done += 1
    except PowerCut:
        pass  # the power failed here
    disk.power_cut()
    again = Bench(dictionary, disk)
    again.parameters.boot()
    assert again.values() in history[done : done + 2]
    assert not again.events


def test_every_default_of_the_flight_dictionary_fits_its_ranges_and_rules() -> None:
    bench = Bench(flight_dictionary())
    assert bench.parameters.handlers().keys() == {
        name for name in flight_dictionary().components["PARAMETERS"].commands if name not in ("NOOP", "RESET_COUNTERS")
    }
    channels = flight_dictionary().components["PARAMETERS"].channels
    assert bench.parameters.channels().keys() == channels.keys() - {"cmdpc", "cmdec"}


def test_a_store_of_garbage_under_a_good_crc_is_the_defaults(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    TwoCopies(bench.disk, "parameters").store(b"\x81\x01")
    again = Bench(dictionary, bench.disk)
    again.parameters.boot()
    assert again.values() == DEFAULTS
    assert again.events[0][0] == "PARAMETERS.LOST"


def test_both_copies_refusing_is_an_error_of_the_disk(dictionary: Dictionary) -> None:
    bench = Bench(dictionary)
    bench.parameters.load({"POWER.count": 5})
    bench.parameters.validate()
    bench.disk.fail_writes("parameters")
    with pytest.raises(StorageError):
        bench.parameters.activate()
