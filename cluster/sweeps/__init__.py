"""Sweeps under Ray Tune."""
