"""Skills: their contracts, how their arguments are filled, where they come from."""
