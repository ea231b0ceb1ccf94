"""Policies in NumPy, and everything between a request and an action."""

from serve.policy.policy import load_policy

__all__ = ["load_policy"]
