"""What goes wrong, when, drawn from named streams or written in a scenario."""
