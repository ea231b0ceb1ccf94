"""Queues of trainings."""
