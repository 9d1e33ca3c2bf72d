"""What a skill is: its contract, how its arguments are filled, where skills come from."""
