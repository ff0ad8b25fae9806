"""The bench: world, channel, faults, virtual time, and the composition of a fleet at mixed fidelity."""
