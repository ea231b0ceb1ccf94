"""Proximal policy optimisation (Schulman et al. 2017), with or without a memory."""
