"""The rule file: what is taken, and what is refused with its place and what was expected."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import profiles
from flightsw.core.limits import default_rules
from flightsw.dictionary.limit_expressions import (
    DEPTH_MAX,
    Comparison,
    Result,
    evaluate,
    parse_comparison,
    parse_expression,
)
from flightsw.dictionary.limit_rules import FILE_BYTES_MAX, WATCHPOINTS_MAX, rule_set
from flightsw.errors import ConfigError

BITS = {"a": 1, "b": 2, "c": 4}
TRUE, FALSE, STALE, ERROR = Result.TRUE, Result.FALSE, Result.STALE, Result.ERROR


def value(text, **results):
    masks = dict.fromkeys(Result, 0)
    for name, result in results.items():
        masks[result] |= BITS[name]
    return evaluate(parse_expression(text, BITS, "rule"), masks[TRUE], masks[STALE], masks[ERROR])


def file(watchpoint='when = "MODE.sunlight > 0"', rule='when = "lit"'):
    return f"""
name = "test"
[watchpoints.lit]
{watchpoint}
doc = "sun"
[rules.lit]
{rule}
doc = "sun"
""".encode()


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (TRUE, TRUE, TRUE, TRUE),
        (TRUE, FALSE, FALSE, TRUE),
        (FALSE, FALSE, FALSE, FALSE),
        (FALSE, STALE, FALSE, STALE),
        (FALSE, ERROR, FALSE, ERROR),
        (TRUE, STALE, STALE, TRUE),
        (TRUE, ERROR, ERROR, TRUE),
        (STALE, STALE, STALE, STALE),
        (STALE, ERROR, ERROR, ERROR),
        (ERROR, ERROR, ERROR, ERROR),
    ],
)
def test_false_dominates_and_true_dominates_or_even_over_stale(left, right, both, either):
    for a, b in ((left, right), (right, left)):
        assert value("a and b", a=a, b=b) is both
        assert value("a or b", a=a, b=b) is either


def test_not_inverts_truth_and_keeps_what_is_no_truth():
    assert [value("not a", a=one) for one in (TRUE, FALSE, STALE, ERROR)] == [FALSE, TRUE, STALE, ERROR]


def test_and_binds_closer_than_or_and_parentheses_closer_than_both():
    assert value("a or b and c", a=TRUE, b=FALSE, c=FALSE) is TRUE
    assert value("(a or b) and c", a=TRUE, b=FALSE, c=FALSE) is FALSE
    assert value("not a and b", a=FALSE, b=TRUE) is TRUE
    assert value("not (a and b)", a=FALSE, b=TRUE) is TRUE


def test_de_morgan_holds_in_three_valued_logic():
    for a, b, c in itertools.product(Result, repeat=3):
        results = {"a": a, "b": b, "c": c}
        assert value("not (a and (b or c))", **results) is value("not a or (not b and not c)", **results)


@settings(deadline=None)
@given(st.text(alphabet="abc ()andort<>=.,0", max_size=60))
def test_any_text_is_an_expression_or_an_error_that_says_where(text):
    try:
        parse_expression(text, BITS, "rule")
        said = "rule, column "
    except ConfigError as error:
        said = str(error)
    assert said.startswith("rule, column ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MODE.sunlight > 0.5", Comparison("", "MODE.sunlight", 0.0, ">", 0.5, "")),
        ("rate(MODE.charge_share)<-5e-4", Comparison("rate", "MODE.charge_share", 0.0, "<", -5e-4, "")),
        ("rise(JOBS.failed, 3600) >= 5", Comparison("rise", "JOBS.failed", 3600.0, ">=", 5.0, "")),
        ("MODE.mode == 'SAFE'", Comparison("", "MODE.mode", 0.0, "==", "SAFE", "")),
        ("A.b > LIMITS.command_loss_s", Comparison("", "A.b", 0.0, ">", 0.0, "LIMITS.command_loss_s")),
    ],
)
def test_a_comparison_is_read_as_written(text, expected):
    assert parse_comparison(text, "here") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "rules: not TOML"),
        (b"\xff", "rules: not TOML"),
        (b"x" * (FILE_BYTES_MAX + 1), f"expected at most {FILE_BYTES_MAX}"),
        (b"[rules]", "missing required field `name`"),
        (file('when = "MODE.sunlight >"'), "[watchpoints.lit]: when, column 16: the end is there, expected a number"),
        (file('when = "MODE.sunlight => 0"'), "column 15: '=' has no meaning here"),
        (file('when = "MODE.sunlight 0"'), "column 15: '0' is there, expected one of <="),
        (file('when = "MODE.sunlite > 0"'), "MODE.sunlite is no channel (did you mean MODE.sunlight?)"),
        (file('when = "speed(MODE.sunlight) > 0"'), "column 1: 'speed' is there, expected a function: rate, rise"),
        (file('when = "rise(MODE.sunlight) > 0"'), "column 19: ')' is there, expected a comma, then the window"),
        (file('when = "rise(MODE.sunlight, -1) > 0"'), "expected a window of more than 0"),
        (file('when = "rate(MODE.mode) > 0"'), "MODE.mode is enum, expected a number for rate"),
        (file('when = "MODE.mode > 0"'), "MODE.mode is enum, expected a text in quotes on the right"),
        (file("when = \"MODE.mode == 'SAVE'\""), "MODE.mode is never 'SAVE', expected one of BOOT, NOMINAL"),
        (file("when = \"MODE.mode < 'SAFE'\""), "< between texts, expected == or !="),
        (file('when = "MODE.sunlight > LIMITS.command_los"'), "LIMITS.command_los is no parameter"),
        (file('when = "MODE.sunlight > 0"\nafter = 3'), "unknown field `after`"),
        (file('when = "MODE.sunlight > 0"\nstale_after_s = 0'), "$.watchpoints[...].stale_after_s"),
        (file(rule='when = "lid"'), "[rules.lit]: when, column 1: 'lid' is there, expected a watchpoint: lit (did you"),
        (file(rule='when = "lit and"'), "column 8: the end is there, expected a watchpoint, not, or an opening"),
        (file(rule='when = "(lit"'), "column 5: the end is there, expected and, or, or a closing parenthesis"),
        (file(rule='when = "lit lit"'), "column 5: 'lit' is there, expected the end"),
        (file(rule=f'when = "{"(" * (DEPTH_MAX + 2)}lit"'), f"expected at most {DEPTH_MAX} levels"),
        (file(rule=f'when = "{"lit or " * 100}lit"'), "703 characters, expected at most 512"),
        (file(rule='when = "lit"\npersistence = 0'), "persistence"),
        (file(rule='when = "lit"\nstate = "OFF"'), "state"),
        (file(rule='when = "lit"\nresponse = [{ mode = "NOMINAL" }]'), "mode"),
        (file(rule='when = "lit"\nresponse = [{}]'), "response[0]: nothing is given, expected one of mode, command"),
        (
            file(rule='when = "lit"\nresponse = [{ mode = "SAFE", sequence = "x" }]'),
            "mode, sequence is given, expected one",
        ),
        (
            file(rule='when = "lit"\nresponse = [{ command = "NODE.RESTE" }]'),
            "NODE.RESTE is no command (did you mean NODE.RESET?)",
        ),
        (
            file(rule='when = "lit"\nresponse = [{ command = "LIMITS.ARM" }]'),
            "LIMITS.ARM: 0 arguments, expected 1: rule",
        ),
        (
            file(rule='when = "lit"\nresponse = [{ command = "LIMITS.LOAD", arguments = ["x"] }]'),
            "expected a command that leaves the rules alone",
        ),
        (
            file(rule='when = "lit"\nresponse = [{ mode = "SAFE", arguments = [1] }]'),
            "arguments are given, expected them for a command only",
        ),
        (file().replace(b"[rules.lit]", b"[rules.Lit]"), "the name is 'Lit', expected small letters"),
        (file().replace(b"watchpoints.lit]", b"watchpoints.not]"), "the name is 'not', expected small letters"),
        (
            file() + b'[watchpoints.dark]\nwhen = "MODE.sunlight == 0"\ndoc = "x"\n',
            "[watchpoints.dark]: no rule uses it",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_expectation(content, message):
    with pytest.raises(ConfigError) as refusal:
        rule_set(content)
    assert message in str(refusal.value)


def test_more_watchpoints_than_a_cycle_can_bear_are_refused():
    many = "".join(
        f'[watchpoints.w{index}]\nwhen = "MODE.sunlight > 0"\ndoc = "x"\n' for index in range(WATCHPOINTS_MAX + 1)
    )
    with pytest.raises(ConfigError, match="watchpoints"):
        rule_set(f'name = "many"\n{many}'.encode())


def test_the_same_file_is_compiled_once_for_all_nodes_of_a_process():
    assert rule_set(file()) is rule_set(bytes(file()))


def test_the_default_rules_hold_and_each_says_why():
    rules = default_rules()
    assert all(len(rule.doc) > 40 for rule in rules.rules)
    assert all(len(watch.doc) > 15 for watch in rules.watchpoints)


def test_no_shipped_profile_comes_near_the_rates_that_no_load_explains():
    limits = {watch.name: watch.comparison.threshold for watch in default_rules().watchpoints}
    for name in profiles.names():
        profile = profiles.load(name)
        load_w = profile.bus_w.value + profile.idle_w.value + profile.compute_w.value
        drained = load_w / profile.discharge_efficiency.value / (profile.battery_wh.value * 3600)
        heated = load_w / profile.electronics_heat_capacity_j_k.value
        assert drained < -0.7 * limits["battery_falls"], f"{name} drains {drained:.2e} of its battery a second"
        assert heated < 0.7 * limits["temperature_runs"], f"{name} heats by {heated:.3f} K/s"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "0", "-1", "1e300", "true", '"60"', "1979-05-27"])
def test_a_patience_that_is_no_time_is_refused(number):
    with pytest.raises(ConfigError, match="stale_after_s"):
        rule_set(file(f'when = "MODE.sunlight > 0"\nstale_after_s = {number}'))


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_is_taken_or_refused_and_nothing_else(data):
    source = bytearray(default_rules().source)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(source) - 1))
        source[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        taken = rule_set(bytes(source)).source
    except ConfigError:
        taken = None
    assert taken in (None, bytes(source))
