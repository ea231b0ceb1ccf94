"""Training on Ray: the loop with actors, sweeps, jobs, checks of a cluster, deliberate failures."""
