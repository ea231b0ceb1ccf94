"""The training loop in one process, with rollback and profiling."""
