"""Learns policies from a data set with several algorithms, and keeps the best one."""
