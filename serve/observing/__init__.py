"""The metrics of the policy server."""
