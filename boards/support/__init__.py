"""Board support: sensors, knobs, identity and the traces of the last end, of boards that run Linux."""
