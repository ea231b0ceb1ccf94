"""Authentication, scopes, and limits of size and rate."""
