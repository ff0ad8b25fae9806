"""Flight software: what runs on a satellite, unchanged at every fidelity."""
