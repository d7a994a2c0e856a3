"""An environment in which packages are missing that are installed here."""

import sys


def hide(monkeypatch, *packages):
    """Make every import of these packages fail until the end of the test, loaded or not."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in packages]
    for name in (*packages, *loaded):
        monkeypatch.setitem(sys.modules, name, None)
