"""Accelerators: device selection, data parallelism and the compilation cache."""
