"""Subcommands of `flatrack` that have modules of their own; `hil.cli` registers them."""
