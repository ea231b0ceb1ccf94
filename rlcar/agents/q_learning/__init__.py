"""What learners of Q share: transitions out of windows, and twin critics."""
