"""Local viewing: play, render and dream."""
