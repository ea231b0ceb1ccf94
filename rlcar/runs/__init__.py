"""The folder of a run: finds, reads and writes it; metrics and progress."""
