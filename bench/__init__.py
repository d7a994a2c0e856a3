"""Benchmarks: each answers one question, keeps its raw numbers, and can draw its table again."""
