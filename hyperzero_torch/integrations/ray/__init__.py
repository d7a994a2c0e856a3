"""A searcher for Ray Tune."""

from .searcher import HyperZeroSearch

__all__ = ["HyperZeroSearch"]
