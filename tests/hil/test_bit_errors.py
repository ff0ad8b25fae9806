"""Bit flips: exact, cheap on clean frames, and the same for the same stream."""

from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.ports import Random
from hil.channel.bit_errors import (
    BurstErrors,
    IndependentErrors,
    bit_errors,
    clean_bits,
    geometric_scale,
    mean_bit_error_rate,
)
from hil.channel.impairments import Burst, Impairments

FADING = Burst(p_good_to_bad=1e-3, p_bad_to_good=1e-2, bit_error_rate_bad=0.2)


def bits_of(frame: bytes) -> str:
    return f"{int.from_bytes(frame, 'big'):0{len(frame) * 8}b}" if frame else ""


def injectors(seed: str) -> list[IndependentErrors | BurstErrors]:
    return [IndependentErrors(0.01, Random(seed)), BurstErrors(1e-3, FADING, Random(seed))]


def test_a_clean_frame_is_handed_on_as_the_same_object() -> None:
    frame = bytes(256)
    rare = Burst(p_good_to_bad=1e-12, p_bad_to_good=0.1, bit_error_rate_bad=0.5)
    for errors in (IndependentErrors(1e-12, Random(1)), BurstErrors(1e-12, rare, Random(1))):
        received, flips = errors.flip(frame)
        assert flips == 0
        assert received is frame


def test_the_number_of_flips_is_the_number_of_changed_bits() -> None:
    for errors in injectors("count"):
        total = 0
        for _ in range(50):
            received, flips = errors.flip(bytes(range(200)))
            changed = int.from_bytes(received, "big") ^ int.from_bytes(bytes(range(200)), "big")
            assert changed.bit_count() == flips
            total += flips
        assert total > 0


@given(cuts=st.lists(st.integers(0, 40), min_size=1, max_size=30), seed=st.integers(0, 2**32))
def test_flips_do_not_depend_on_where_frames_begin(cuts: list[int], seed: int) -> None:
    whole = [errors.flip(bytes(sum(cuts))) for errors in injectors(f"{seed}")]
    for errors, (expected, expected_flips) in zip(injectors(f"{seed}"), whole, strict=True):
        parts = [errors.flip(bytes(size)) for size in cuts]
        assert b"".join(part for part, _ in parts) == expected
        assert sum(flips for _, flips in parts) == expected_flips


def test_equal_streams_flip_equal_bits() -> None:
    for first, second, other in zip(injectors("a"), injectors("a"), injectors("b"), strict=True):
        noise = [first.flip(bytes(500)) for _ in range(20)]
        assert noise == [second.flip(bytes(500)) for _ in range(20)]
        assert noise != [other.flip(bytes(500)) for _ in range(20)]


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.3, 0.5])
def test_independent_errors_have_the_asked_rate(rate: float) -> None:
    errors = IndependentErrors(rate, Random(f"rate {rate}"))
    frame = bytes(1115)
    count = 300 if rate < 0.1 else 8
    bits = count * len(frame) * 8
    flips = sum(errors.flip(frame)[1] for _ in range(count))
    assert abs(flips - bits * rate) < 5 * sqrt(bits * rate * (1 - rate))  # five sigma of the binomial


def test_independent_errors_fall_on_all_bits_of_a_byte_alike() -> None:
    errors = IndependentErrors(0.05, Random("positions"))
    received = bits_of(errors.flip(bytes(25_000))[0])
    sigma = sqrt(25_000 * 0.05 * 0.95)
    for place in range(8):
        assert abs(received[place::8].count("1") - 25_000 * 0.05) < 5 * sigma


def test_independent_errors_have_no_memory() -> None:
    received = bits_of(IndependentErrors(0.1, Random("memory")).flip(bytes(20_000))[0])
    pairs = sum(a == b == "1" for a, b in pairwise(received))
    expected = len(received) * 0.1 * 0.1
    assert abs(pairs - expected) < 6 * sqrt(expected)


def test_a_certain_error_flips_every_bit() -> None:
    assert IndependentErrors(1.0, Random(3)).flip(bytes(4)) == (b"\xff" * 4, 32)


def test_the_first_bit_sent_is_the_most_significant() -> None:
    class FixedChance(Random):
        def random(self) -> float:
            return 1.0 - float(0.5**3.5)  # floor(3.5) clean bits at a rate of one half

    assert IndependentErrors(0.5, FixedChance()).flip(b"\0") == (bytes([0b00010001]), 2)


def test_an_event_without_chance_never_comes_and_draws_all_the_same() -> None:
    used, fresh = Random(4), Random(4)
    assert clean_bits(used, geometric_scale(0.0)) > 10**18
    assert clean_bits(fresh, geometric_scale(0.5)) < 100
    assert used.random() == fresh.random()


def test_bursts_have_the_mean_rate_of_theory() -> None:
    scintillation = Burst(p_good_to_bad=0.01, p_bad_to_good=0.1, bit_error_rate_bad=0.2)
    impairments = Impairments(rate_bps=1.0, bit_error_rate=1e-4, burst=scintillation)
    theory = mean_bit_error_rate(impairments)
    assert theory == pytest.approx((0.01 * 0.2 + 0.1 * 1e-4) / 0.11)
    errors = bit_errors(impairments, Random("mean"))
    assert errors is not None
    bits = 200 * 2000 * 8
    flips = sum(errors.flip(bytes(2000))[1] for _ in range(200))
    # The states correlate as (1 - p_gb - p_bg)^k, so their sum has 2 share_good share_bad / (p_gb + p_bg) of variance
    # per bit.
    share_bad = 0.01 / 0.11
    sigma = sqrt(bits * (0.2**2 * 2 * share_bad * (1 - share_bad) / 0.11 + theory))
    assert abs(flips - bits * theory) < 5 * sigma
    assert 5 * sigma < 0.1 * bits * theory, "the bound must mean something"


def test_bursts_last_as_long_as_asked() -> None:
    burst = Burst(p_good_to_bad=1e-3, p_bad_to_good=1e-2, bit_error_rate_bad=0.5)
    received = bits_of(BurstErrors(0.0, burst, Random("lengths")).flip(bytes(60_000))[0])
    # Errors in a burst are 2 bits apart on average: 60 clean bits inside one are rarer than the bursts that touch.
    runs = [run for run in received.split("0" * 60) if run]
    seen_bits = sum(len(run.strip("0")) for run in runs) / len(runs)
    assert 80 < seen_bits < 130  # 1 / p_bad_to_good = 100, some bursts merge and some show no error at either end
    assert 0.75 * 0.48 < len(runs) / 1000 < 1.25 * 0.48  # 480,000 bits / (1,000 + 100) bits, less those merged


def test_bursts_of_equal_states_are_independent_errors() -> None:
    same = Burst(p_good_to_bad=1e-2, p_bad_to_good=1e-2, bit_error_rate_bad=0.01)
    received = bits_of(BurstErrors(0.01, same, Random("equal")).flip(bytes(50_000))[0])
    bits = len(received)
    assert abs(received.count("1") - bits * 0.01) < 5 * sqrt(bits * 0.01 * 0.99)
    pairs = sum(a == b == "1" for a, b in pairwise(received))
    assert abs(pairs - bits * 1e-4) < 6 * sqrt(bits * 1e-4)


def test_a_clean_link_has_no_injector() -> None:
    assert bit_errors(Impairments(rate_bps=1.0), Random(1)) is None
    assert isinstance(bit_errors(Impairments(rate_bps=1.0, bit_error_rate=0.1), Random(1)), IndependentErrors)
    assert isinstance(bit_errors(Impairments(rate_bps=1.0, burst=FADING), Random(1)), BurstErrors)


def test_a_burst_channel_starts_in_the_bad_state_as_often_as_it_is_in_it() -> None:
    lasting = Burst(p_good_to_bad=1e-6, p_bad_to_good=3e-6, bit_error_rate_bad=0.5)
    starts_bad = [BurstErrors(0.0, lasting, Random(f"start {seed}")).flip(bytes(20))[1] > 0 for seed in range(1000)]
    assert abs(sum(starts_bad) - 250) < 5 * sqrt(1000 * 0.25 * 0.75)
