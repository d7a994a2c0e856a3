"""The command line: parse, call, print. ``hyperzero --help`` teaches."""

from .app import app, main

__all__ = ["app", "main"]
