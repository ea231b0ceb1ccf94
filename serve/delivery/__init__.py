"""Progressive delivery: how a new version takes over from the one that acts, step by step."""
