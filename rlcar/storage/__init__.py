"""Arrays on disk, checkpoints, object stores and the mirror of a run."""
