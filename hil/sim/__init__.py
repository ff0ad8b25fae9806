"""Virtual time, named streams, the trace and the simulated disk."""
