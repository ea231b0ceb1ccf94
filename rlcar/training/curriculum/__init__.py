"""Curricula: a training in stages, each with thresholds that the policy has to pass."""
