"""Experiment trackers beside metrics.jsonl and TensorBoard: MLflow and Weights & Biases.

`metrics.jsonl` is the record of a run. A tracker gets a copy, and its outage stops no training.
"""
