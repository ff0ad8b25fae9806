"""Error correction on the bench: where detection alone drowns in repetition, the corrected link hardly notices."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from flightsw.compute.inference import InferenceCache
from flightsw.errors import ConfigError
from hil.bench import summary
from hil.bench.judge import Outcome
from hil.bench.run import Bench
from hil.bench.scenario import LinkSpec, Scenario, check, load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three.toml"
BIT_ERROR_RATE = 1e-3
"""A frame of 1,100 bytes arrives clean once in 7,000 times."""


def noisy(coding: str, bit_error_rate: float = BIT_ERROR_RATE) -> Scenario:
    """The example with a noisy ground link in this coding."""
    scenario = load(str(EXAMPLE))
    ground = scenario.links.ground
    ground = replace(ground, coding=coding, impairments=replace(ground.impairments, bit_error_rate=bit_error_rate))
    return replace(scenario, links=replace(scenario.links, ground=ground))


@pytest.fixture(scope="module")
def corrected() -> Outcome:
    return Bench(noisy("ccsds-rs-1"), 7, cache=InferenceCache()).run()


def test_a_corrected_link_carries_all_work_through_one_wrong_bit_in_a_thousand(corrected: Outcome) -> None:
    counters = corrected.counters
    assert corrected.passed, (corrected.violations, corrected.unmet)
    assert counters["jobs_completed"] == counters["results_equal"] == 24
    assert counters["frames_corrected"] > 0.5 * counters["frames_sent"], "the short ones arrive clean more often"
    assert counters["frames_rejected"] == 0
    assert counters["retransmissions"] < 0.05 * counters["frames_sent"], "for whole frames that the channel loses"


def test_detection_alone_repeats_and_repeats_and_gets_nothing_through() -> None:
    until_s = 700.0  # two minutes into the first pass
    counters = Bench(noisy("cobs-crc32c"), 7, until_s=until_s).run().counters
    with_correction = Bench(noisy("ccsds-rs-1"), 7, until_s=until_s).run().counters
    assert counters["frames_corrected"] == 0
    assert counters["frames_rejected"] > 0.8 * counters["frames_sent"]
    assert counters["retransmissions"] > 100 * with_correction["retransmissions"]
    assert counters["uplinked_bytes"] == 0 < with_correction["uplinked_bytes"]


def test_every_frame_is_accounted_for_where_some_are_corrected_and_some_are_not() -> None:
    outcome = Bench(noisy("ccsds-rs-1", bit_error_rate=7e-3), 7, until_s=820.0).run()
    counters = outcome.counters
    assert min(counters["frames_corrected"], counters["frames_rejected"]) > 20
    assert [violation for violation in outcome.violations if violation.rule == 2] == []


def test_the_summary_says_what_became_of_frames_with_flips(corrected: Outcome) -> None:
    grid = summary.table(corrected, "noisy")
    labels, values = (list(grid.columns[index].cells) for index in (1, 2))
    value = values[labels.index("frames with flips / corrected / rejected")]
    corrected_count = f"{corrected.counters['frames_corrected']:,.0f}"
    assert value == f"{corrected_count} / {corrected_count} / 0"


@pytest.mark.parametrize("field", ["ground", "isl"])
def test_a_coding_that_does_not_exist_is_refused_by_name(field: str) -> None:
    scenario = load("three-body-12")
    spec: LinkSpec = getattr(scenario.links, field)
    wrong = replace(scenario, links=replace(scenario.links, **{field: replace(spec, coding="turbo")}))
    with pytest.raises(ConfigError) as caught:
        check(wrong, "mine.toml")
    message = str(caught.value)
    assert message.startswith(f"mine.toml: links.{field}.coding 'turbo': expected one of ")
    assert "ccsds-rs-1, " in message
    assert "cobs-crc32c" in message


def test_segments_that_do_not_fit_into_a_frame_of_the_coding_are_refused() -> None:
    scenario = load(str(EXAMPLE))
    ground = replace(scenario.links.ground, segment_bytes=60_000)
    check(replace(scenario, links=replace(scenario.links, ground=ground)), "mine.toml")
    wrong = replace(scenario, links=replace(scenario.links, ground=replace(ground, coding="ccsds-rs-1")))
    with pytest.raises(ConfigError, match=r"mine\.toml: links\.ground\.segment_bytes: 60000 in coding 'ccsds-rs-1'"):
        check(wrong, "mine.toml")


def test_a_file_may_name_the_coding(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("[links.ground]\n", '[links.ground]\ncoding = "ccsds-rs-5-dual"\n'), encoding="utf-8")
    assert load(str(path)).links.ground.coding == "ccsds-rs-5-dual"
    assert load(str(EXAMPLE)).links.ground.coding == "cobs-crc32c"
