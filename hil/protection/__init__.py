"""Fault protection shown: what strikes one node, in which mode it ends, what it tells, what brings it back."""
