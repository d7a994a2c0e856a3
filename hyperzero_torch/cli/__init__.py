"""The command line: it parses options, calls the package and prints. See ``hyperzero --help``."""

from .app import app, main

__all__ = ["app", "main"]
