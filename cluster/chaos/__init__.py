"""Kills parts of a running training and measures the cost."""
