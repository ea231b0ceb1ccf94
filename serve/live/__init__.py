"""The live page, and the simulation that it shows."""
