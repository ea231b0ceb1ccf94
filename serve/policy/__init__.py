"""Policies in NumPy, and the path from a request to an action."""

from serve.policy.policy import load_policy

__all__ = ["load_policy"]
