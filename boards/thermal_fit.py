"""Thermal constants of a board from its temperature while it rests, computes and rests again.

The model is one mass with a sensor that sits on the heat source:

    C dT/dt = P - G (T - T_air)            the mass: board, heat sink, box
    sensor  = T + R P                      the die is above the mass by a drop that comes and goes at once

so that a step of power dP, on at t0 and off at t1, is seen as

    sensor = T_rest + R dP on(t) + dT (1 - exp(-(t - t0) / tau))                      from t0 to t1
           = T_rest + dT (1 - exp(-(t1 - t0) / tau)) exp(-(t - t1) / tau)             from t1 on

with tau = C / G and dT = dP / G. For a given tau this is linear in T_rest, R dP and dT: least squares. tau is found by
search. A second mass with a time constant between the die's and the board's shows in the residual, which is reported.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import BoardError

SAMPLES_MIN: Final = 30
"""Fewest samples of each phase: a minute every two seconds."""
RISE_K_MIN: Final = 2.0
"""Least rise that is a measurement [K]: sensors of processors have steps of 0.5 K and more."""
NOISES_MIN: Final = 5.0
"""Least rise in standard deviations of the sensor at rest."""
RESIDUAL_SHARE_MAX: Final = 0.15
"""Largest residual, as a share of the rise: beyond it the board is not the model."""
TAU_SPAN: Final = (2.0, 2.0)
"""tau is sought from the sampling period times the one to the heating time times the other: what lies outside was not
seen."""
TAUS_COUNT: Final = 200
REFINEMENTS: Final = 3
"""Each narrows the search to the two neighbours of the best: tau is good to a millionth."""

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThermalFit:
    """What a step of power does to a board."""

    tau_s: float
    """Time constant of the mass [s]."""
    rise_k: float
    """How much hotter the mass becomes in the end [K]."""
    die_k: float
    """How much hotter the sensor is at once [K]."""
    residual_k: float
    """Root mean square of what the model leaves [K]."""
    noise_k: float
    """Standard deviation of the sensor at rest [K]."""

    def conductance_w_k(self, power_w: float) -> float:
        """From the mass to the air, for the power that was stepped."""
        return power_w / self.rise_k

    def heat_capacity_j_k(self, power_w: float) -> float:
        """Of the mass, for the power that was stepped."""
        return self.tau_s * power_w / self.rise_k


def fit(times_s: Samples, temperatures_degc: Samples, on_s: float, off_s: float) -> ThermalFit:
    """Fit the model to one step of power.

    Args:
        times_s: of the samples, rising [s].
        temperatures_degc: of the sensor [degree Celsius].
        on_s, off_s: when the power came and went, on the same scale; a sample of that very instant is of before.

    Raises:
        BoardError: there are too few samples, the rise is within the noise, or the board is not the model; says which.
    """
    phases = (times_s <= on_s, (times_s > on_s) & (times_s <= off_s), times_s > off_s)
    counts = [int(phase.sum()) for phase in phases]
    if min(counts) < SAMPLES_MIN:
        raise BoardError(f"{min(counts)} readings of the temperature in a phase, expected at least {SAMPLES_MIN}")
    noise_k = _noise_k(times_s[phases[0]], temperatures_degc[phases[0]])
    period_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1)
    low_s, high_s = period_s * TAU_SPAN[0], (off_s - on_s) * TAU_SPAN[1]
    for _ in range(1 + REFINEMENTS):
        taus_s = np.geomspace(low_s, high_s, TAUS_COUNT)
        errors = [_solve(times_s, temperatures_degc, on_s, off_s, tau_s)[1] for tau_s in taus_s]
        best = int(np.argmin(errors))
        low_s, high_s = taus_s[max(0, best - 1)], taus_s[min(TAUS_COUNT - 1, best + 1)]
    tau_s = float(taus_s[best])
    (_, die_k, rise_k), residual_k = _solve(times_s, temperatures_degc, on_s, off_s, tau_s)
    least_k = max(RISE_K_MIN, NOISES_MIN * noise_k)
    if rise_k < least_k:
        raise BoardError(f"the rise of {rise_k:.1f} K is within the noise, expected at least {least_k:.1f} K")
    if tau_s > off_s - on_s:
        raise BoardError(f"the time constant of some {tau_s:.0f} s is longer than the {off_s - on_s:.0f} s under load")
    if residual_k > RESIDUAL_SHARE_MAX * rise_k:
        raise BoardError(f"one mass leaves {residual_k:.1f} K of a rise of {rise_k:.1f} K: the board is not the model")
    return ThermalFit(tau_s, rise_k, die_k, residual_k, noise_k)


def _solve(
    times_s: Samples, temperatures_degc: Samples, on_s: float, off_s: float, tau_s: float
) -> tuple[tuple[float, float, float], float]:
    """((rest, die, rise), root mean square of the residual) for one tau."""
    is_on = ((times_s > on_s) & (times_s <= off_s)).astype(np.float64)
    heated_s = np.clip(times_s, on_s, off_s) - on_s
    cooled_s = np.maximum(times_s, off_s) - off_s
    mass = -np.expm1(-heated_s / tau_s) * np.exp(-cooled_s / tau_s)
    columns = np.column_stack((np.ones_like(times_s), is_on, mass))
    solution = np.linalg.lstsq(columns, temperatures_degc, rcond=None)[0]
    residual_k = float(np.sqrt(np.mean((temperatures_degc - columns @ solution) ** 2)))
    return (float(solution[0]), float(solution[1]), float(solution[2])), residual_k


def _noise_k(times_s: Samples, temperatures_degc: Samples) -> float:
    """Standard deviation at rest, without a slow drift [K]."""
    drift = np.polynomial.Polynomial.fit(times_s, temperatures_degc, 1)
    return float(np.std(temperatures_degc - drift(times_s)))
