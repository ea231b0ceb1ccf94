"""Continuous learning: collect recorded sessions, train, gate, register, roll out; without Ray."""
