"""What happens between two looks of ``hyperzero watch``."""

from types import SimpleNamespace

from hyperzero_torch.cli import watch


def looks(monkeypatch, *between):
    """Each function runs between two looks of ``watch``; after the last comes Ctrl-C."""
    waiting = iter(between)

    def sleep(seconds):
        try:
            next(waiting)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=sleep))  # not of other threads
