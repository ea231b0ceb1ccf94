"""Races of published versions and runs against each other, and their ratings."""
