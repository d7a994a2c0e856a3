"""Readings -> deltas -> evidence of every candidate."""
