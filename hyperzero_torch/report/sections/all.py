"""All sections of a study's report, in order."""

from __future__ import annotations

from ..data.facts import Facts
from ..data.retrospect import look_back
from .audit import drift, late, retired
from .blocks import Section
from .candidates import deltas, effects
from .exposure import exposure
from .goals import changed_goals
from .launch import launch
from .quarantine import quarantine
from .rounds import calibration, progress, traffic
from .space import parameters, surface
from .summary import summary
from .transfer import transfer


def sections(facts: Facts) -> list[Section]:
    """The whole report."""
    past = look_back(facts)
    return [
        summary(facts),
        *launch(facts),
        progress(facts, past),
        traffic(facts),
        exposure(facts),
        effects(facts),
        surface(facts),
        parameters(facts),
        deltas(facts),
        calibration(facts, past),
        *transfer(facts),
        late(facts),
        *changed_goals(facts),
        *quarantine(facts),
        retired(facts),
        drift(facts),
    ]
