"""Commanding, events, modes, telemetry."""
