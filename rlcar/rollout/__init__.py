"""Drives environments with a policy, block by block, which makes trajectories."""
