"""The training loop in one process, with rollback, profiling and curricula."""
