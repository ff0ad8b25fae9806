"""Battery and heat of many nodes at once: one battery and two thermal masses (electronics, radiator) each.

```text
 sun ──> array ──> battery ──> load ──heat──> electronics ──conductance──> radiator ──> space
  └────────────────────────────────────────────────────────────────────────> absorbed
```

    net  = array_w sunlight - load_w
    Q'   = net charge_efficiency          if net > 0, else net / discharge_efficiency; Q within 0 and battery_j
    T_e' = (load_w - G (T_e - T_r)) / C_e
    T_r' = (G (T_e - T_r) + absorbed_sun_w sunlight + absorbed_albedo_ir_w - eps sigma A T_r^4) / C_r

All power that a node draws ends as heat in its electronics. The steps are explicit Euler in equal parts of at most
`SUBSTEP_S_MAX`. The scalar model of a simulated board computes the same operations in the same order, hence both agree
to rounding, until a battery is empty: there the board switches off, here the charge stays zero and the caller judges.
"""

from dataclasses import dataclass, fields
from math import ceil, inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import ConfigError

STEFAN_BOLTZMANN_W_M2_K4: Final = 5.670374419e-8
"""Source: CODATA 2018."""
SUBSTEP_S_MAX: Final = 5.0
"""Longest Euler step [s]: 0.006 K from an adaptive integrator after an orbit of a 200 W node."""


@dataclass(frozen=True, slots=True)
class EnergyParameters:
    """Power and heat of n nodes; every field is (n,).

    Attributes:
        array_w: electric power of the solar array in full light.
        battery_j: capacity of the battery.
        charge_efficiency: share of the surplus that is stored, above 0 and at most 1.
        discharge_efficiency: share of the drawn charge that reaches the load, above 0 and at most 1.
        electronics_heat_capacity_j_k: of the heated part.
        radiator_heat_capacity_j_k: of the radiating part.
        conductance_w_k: between the two.
        radiator_area_m2: radiating area, one side.
        emissivity: of the radiator, above 0 and at most 1.
        absorbed_sun_w: sunlight that the radiator absorbs in full light.
        absorbed_albedo_ir_w: the Earth's reflected light and infrared that the radiator absorbs, on the orbit's mean.
    """

    array_w: NDArray[np.float64]
    battery_j: NDArray[np.float64]
    charge_efficiency: NDArray[np.float64]
    discharge_efficiency: NDArray[np.float64]
    electronics_heat_capacity_j_k: NDArray[np.float64]
    radiator_heat_capacity_j_k: NDArray[np.float64]
    conductance_w_k: NDArray[np.float64]
    radiator_area_m2: NDArray[np.float64]
    emissivity: NDArray[np.float64]
    absorbed_sun_w: NDArray[np.float64]
    absorbed_albedo_ir_w: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: names the field, the node's index, the value and what was expected.
        """
        for field in fields(self):
            values = getattr(self, field.name)
            assert values.shape == self.array_w.shape, "every field has one value per node"
            is_share = field.name in ("charge_efficiency", "discharge_efficiency", "emissivity")
            is_divisor = is_share or field.name.endswith(("_heat_capacity_j_k", "battery_j"))
            high = 1.0 if is_share else inf
            wrong = ~((values > 0 if is_divisor else values >= 0) & (values <= high) & np.isfinite(values))
            if wrong.any():
                node = int(np.flatnonzero(wrong)[0])
                limits = ("above 0" if is_divisor else "at least 0") + (" and at most 1" if is_share else "")
                raise ConfigError(f"energy: {field.name} of node {node} is {values[node]}, expected {limits}")


@dataclass(frozen=True, slots=True)
class EnergyState:
    """Battery charge [J] and temperatures [K] of n nodes; every field is (n,)."""

    charge_j: NDArray[np.float64]
    electronics_k: NDArray[np.float64]
    radiator_k: NDArray[np.float64]


def step(
    parameters: EnergyParameters,
    state: EnergyState,
    sunlight: NDArray[np.floating],
    load_w: NDArray[np.float64],
    dt_s: float,
) -> EnergyState:
    """The state after a time with constant light and load; the given state stays as it is.

    Args:
        parameters: of the n nodes.
        state: at the start.
        sunlight: (n,) share of the sun's disc in view.
        load_w: (n,) power drawn.
        dt_s: the time, at least 0.
    """
    assert dt_s >= 0, "time does not run backwards"
    substeps = max(1, ceil(dt_s / SUBSTEP_S_MAX))
    part_s = dt_s / substeps
    p = parameters
    net_w = p.array_w * sunlight - load_w
    stored_j = np.where(net_w > 0, net_w * p.charge_efficiency, net_w / p.discharge_efficiency) * part_s
    absorbed_sun_w = p.absorbed_sun_w * sunlight
    radiated_w_k4 = p.emissivity * STEFAN_BOLTZMANN_W_M2_K4 * p.radiator_area_m2
    charge_j, electronics_k, radiator_k = state.charge_j, state.electronics_k, state.radiator_k
    for _ in range(substeps):
        charge_j = np.clip(charge_j + stored_j, 0.0, p.battery_j)
        conducted_w = p.conductance_w_k * (electronics_k - radiator_k)
        square_k2 = radiator_k * radiator_k
        radiated_w = radiated_w_k4 * square_k2 * square_k2
        electronics_k = electronics_k + part_s * (load_w - conducted_w) / p.electronics_heat_capacity_j_k
        heating_w = conducted_w + absorbed_sun_w + p.absorbed_albedo_ir_w - radiated_w
        radiator_k = radiator_k + part_s * heating_w / p.radiator_heat_capacity_j_k
    return EnergyState(charge_j, electronics_k, radiator_k)
