"""Board support: implements `flightsw.ports` for simulated and real hardware."""
