"""The simulated board: the ports of flightsw on modelled physics."""
