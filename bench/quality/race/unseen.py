"""The default in the worlds of ``siblings``, beside somebody who knows the answer.

for w in smooth matern additive kink small large weak_hours corner; do
    python -m bench.quality.race.run --world $w --dims 2 --contenders hyperzero
    python -m bench.quality.race.run --world $w --dims 4 --contenders hyperzero
done
python -m bench.quality.race.limit
"""

from __future__ import annotations

import numpy as np

from .records import OURS, Race, interval, load, load_limits
from .run import path_of
from .worlds import SIBLINGS

_HOUR = 30
_PARTS = (0.5, 0.8, 0.9)
DESCRIPTIONS = {
    "smooth": "the family itself",
    "matern": "rough surfaces (Matern 3/2)",
    "additive": "parameters do not interact",
    "kink": "a ridge along which the slope jumps",
    "small": "lifts within 2 %",
    "large": "lifts within 10 %",
    "weak_hours": "levels fall to a sixth of their mean",
    "corner": "the base near a corner",
}


def table() -> str:
    """A row for each kind of world and number of parameters, losing rows too."""
    races, limits = load(), load_limits()
    parts = ", ".join(f"{100 * part:.0f} %" for part in _PARTS)
    lines = [
        f"| worlds | dims | number | hour 20 | hour {_HOUR} | by mean | knows the answer | of that "
        f"by the better | hours to {parts} of it | violating | exposed violation |",
        "|" + " --- |" * 11,
    ]
    for name in SIBLINGS:
        for dims in (2, 4):
            race = races.get(path_of(name, dims, 1.0).stem)
            if race is not None and OURS in race.runs:
                lines.append(_row(race, DESCRIPTIONS[name], dims, limits[race.title][str(_HOUR)]))
    return "\n".join(lines)


def _row(race: Race, description: str, dims: int, limit: float) -> str:
    score, by_mean = (race.column(OURS, name) for name in ("score", "score_mean"))
    mean, half = interval(score[:, _HOUR])
    best = max(score[:, _HOUR].mean(), by_mean[:, _HOUR].mean())
    cells = [
        description,
        str(dims),
        str(len(score)),
        f"{100 * score[:, 20].mean():.1f} %",
        f"{100 * mean:.1f} ± {100 * half:.1f} %",
        f"{100 * by_mean[:, _HOUR].mean():.1f} %",
        f"{100 * limit:.1f} %",
        f"{best / limit:.2f}",
        ", ".join(_first_hour(score.mean(0), part * limit) for part in _PARTS),
        f"{100 * race.violating(OURS, _HOUR):.0f} %",
        f"{100 * race.column(OURS, 'exposed_violation').mean():.3f} %",
    ]
    return f"| {' | '.join(cells)} |"


def _first_hour(score: np.ndarray, wanted: float) -> str:
    reached = np.flatnonzero(score >= wanted)
    return str(reached[0]) if len(reached) else "–"
