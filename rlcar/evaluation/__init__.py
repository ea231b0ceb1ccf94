"""Scores a policy on fixed tracks: laps, reports, pictures and baselines."""
