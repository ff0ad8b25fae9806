"""The bundle agent: LTP engine, contacts, routing."""
