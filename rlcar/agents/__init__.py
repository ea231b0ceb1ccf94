"""Learning algorithms: one folder for each."""
