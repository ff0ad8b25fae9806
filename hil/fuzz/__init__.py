"""Hostile bytes: samples of everything that is decoded here, damaged with intent, and what each decoder must hold."""
