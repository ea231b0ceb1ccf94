"""Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""
