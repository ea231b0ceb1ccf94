"""Campaigns: queues of trainings."""
