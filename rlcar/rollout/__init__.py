"""Environment and policy make trajectories."""
