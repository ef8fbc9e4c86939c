"""The tests mirror src one to one; what they share stands in oracles, recipe and networks."""
