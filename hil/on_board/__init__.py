"""The fault agent: on a board of a bench it does to a node what radiation, cables and people do. No flight software."""
