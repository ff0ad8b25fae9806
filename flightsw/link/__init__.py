"""Bearers: what carries (interface, coded frame) over the lab wire."""
