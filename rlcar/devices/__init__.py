"""Accelerators: their selection, data parallelism and the compilation cache."""
