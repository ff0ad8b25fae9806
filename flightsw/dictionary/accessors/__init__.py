"""Names of the dictionary for the type checker: arguments of commands, events, keys of parameters.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""
