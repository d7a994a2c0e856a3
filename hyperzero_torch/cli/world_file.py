"""The study file of a simulation, with which the other commands read and steer its study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..problem.written import stored
from ..runtime.files import write_atomically
from ..study.config import LiveConfig
from ..tuner.tuner import Tuner

_FIRST_LINE = "# The study of a simulation; it is written anew each time."
_KEYS = ("parameters", "theta_constraints", "base", "metrics", "objective", "constraints")


def write_world_file(
    tuner: Tuner, folder: Path, journal: str, live: LiveConfig | None = None
) -> Path | None:
    """Write the study file of a simulated study into its folder, named after it.

    Args:
        tuner: of the study.
        folder: of the journal.
        journal: its file in that folder.
        live: where its platform is.
    Returns:
        The file; None where another one has its name.
    """
    path = folder / f"{tuner.study.name}.yaml"
    if path.exists() and not _is_ours(path):
        return None
    header = tuner.journal.header(tuner.study.name)
    problem = stored(tuner.problem)
    document: dict[str, Any] = {
        "study": header.study,
        "journal": f"sqlite:///{journal}",
        "seed": header.seed,
        **{key: problem[key] for key in _KEYS if problem.get(key)},
    }
    if problem["base_levels"]:
        document["base_levels"] = dict(zip(tuner.problem.metrics, problem["base_levels"]))
    if traffic := tuner.config.model_dump(mode="json", exclude_defaults=True):
        document["traffic"] = traffic
    if live is not None:
        document["live"] = live.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    write_atomically(path, f"{_FIRST_LINE}\n{text}")
    return path


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(_FIRST_LINE)
    except (OSError, UnicodeDecodeError):
        return False
