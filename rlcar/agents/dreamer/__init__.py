"""The world-model agent (DreamerV3 family) and the plain documented one."""
