"""What the flags or the table of a study file serve before the study is begun."""

from __future__ import annotations

from pathlib import Path

from ..errors import FencedError
from ..live.build import updater_of
from ..live.serve.fence import in_words
from ..study.config import StudyConfig


def check_unserved(config: Path, study: StudyConfig) -> None:
    """Refuse to begin a study on flags that serve a plan: its journal was lost, or they are taken.

    Raises:
        FencedError: the flags or the table serve this study, or another one.
    """
    if study.live is None:
        return
    stamp = updater_of(study.live, config.resolve().parent).owner()
    if stamp is None:
        return
    raise FencedError(
        f"the journal holds no study {study.study!r}, but {study.live.place} "
        f"serves {in_words(stamp)}: the journal was lost, another journal is named, or another "
        "study uses these flags. Nothing was written: restore the journal, name other flags, or "
        f"begin the study anew on purpose with 'hyperzero take-over --config {config}'"
    )
