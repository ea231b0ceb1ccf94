"""The folder of a run: finding, reading and writing it; metrics and progress."""
