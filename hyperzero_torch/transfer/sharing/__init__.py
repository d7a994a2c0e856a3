"""Packages that domains exchange: contents, privacy, secure sums."""
