"""Metrics of the policy server."""
