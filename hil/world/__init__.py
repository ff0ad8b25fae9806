"""The physical world: orbits, eclipse, contacts, radiation, power and heat."""
