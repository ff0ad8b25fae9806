"""Composes a fleet from a scenario, runs it and judges it."""
