"""Captures: what crossed the links as pcapng files, and captures, ours or foreign, as text."""
