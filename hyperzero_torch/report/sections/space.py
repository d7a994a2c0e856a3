"""The section on the estimates over theta: maps of two parameters, slices of any number."""

from __future__ import annotations

import torch

from ...problem.space import Choice
from ...study.history import CONTROL
from ...surrogate import Posterior
from ..data.candidate_rows import on_the_map, slack_kind
from ..data.facts import Facts
from ..data.surfaces import Slice, at_theta, is_plane, plane, slices
from ..data.tables import Kind, Table, interval, parameter_value, table
from ..figures import maps
from ..figures.canvas import GREEN, INK, VERMILLION, Key
from .blocks import Block, Plot, Section, limited, no_estimates

_MOST_SLICES = 24  # figures; beyond, only the parameters with the largest effects are drawn
_ROWS_OF_A_SLICE = 9


def surface(facts: Facts) -> Section:
    """Objective and guardrails over theta."""
    title = "Objective and guardrails over the space"
    posterior = facts.posterior
    if posterior is None:
        return Section("surface", title, [no_estimates(facts)])
    blocks = _maps(facts, posterior) if is_plane(facts) else []
    return Section("surface", title, [*blocks, *_slices(facts, posterior)])


def _legend(facts: Facts, base: Key, oracle: str, best: str) -> list[Key]:
    """Base, and oracle and recommended where there are any, with their shapes."""
    keys = [base]
    keys += [Key("oracle", GREEN, oracle)] if facts.oracle is not None else []
    keys += [Key("recommended", VERMILLION, best)] if facts.best.candidate_id != CONTROL else []
    return keys


def _maps(facts: Facts, posterior: Posterior) -> list[Block]:
    theta = plane(facts)
    estimates = at_theta(facts, posterior, theta)
    keys = [Key("candidates", "#ffffff", "circle")]
    keys += _legend(facts, Key("base", "#111111", "square"), "diamond", "star")
    rows = on_the_map(facts, posterior)
    least = facts.config.min_prob_feasible
    border = (estimates.prob_feasible, least) if facts.problem.num_constraints else None
    gain = maps.map_of(facts, theta, estimates.gain[0], "signed", border=border)
    gain_keys = [*keys, Key(f"P(feasible) = {least:g}", "#ffffff", "border")] if border else keys
    blocks: list[Block] = [
        "Posterior means. The scale is above each map.",
        Plot("Gain over base", gain, rows, tuple(gain_keys), is_wide=False),
    ]
    for i, name in enumerate(facts.problem.constraint_names):
        slack, kind = estimates.slack[0, :, i], slack_kind(facts, i)
        drawn = maps.map_of(facts, theta, slack, kind, diverging=True, border=(slack, 0.0))
        slack_keys = (*keys, Key("slack = 0", INK, "dashed"))
        blocks.append(Plot(f"Slack of {name}", drawn, rows, slack_keys, is_wide=False))
    if border is not None:
        drawn = maps.map_of(facts, theta, estimates.prob_feasible, "percent")
        blocks.append(Plot("P(feasible)", drawn, rows, tuple(keys), is_wide=False))
    return blocks


def _slices(facts: Facts, posterior: Posterior) -> list[Block]:
    best = facts.best.candidate_id
    all_slices = slices(facts, posterior, facts.bucket.theta[best])
    space = facts.problem.space
    most = max(2, _MOST_SLICES // (1 + facts.problem.num_constraints))
    shown = sorted(sorted(all_slices, key=_swing, reverse=True)[:most], key=lambda s: s.param)
    lead = (
        "One parameter varies, all others are those of the "
        f"{'recommended candidate' if best != CONTROL else 'base'}. Bands are "
        f"{facts.config.confidence:.0%} intervals."
    )
    which = ", those along which the objective varies most"
    lead += limited(len(shown), len(all_slices), "parameters", which)
    blocks: list[Block] = [lead]
    for each in shown:
        is_choice = isinstance(space.parameters[each.param], Choice)
        shapes = ("ring", "diamond", "star") if is_choice else ("dotted", "dashed", "solid")
        keys = tuple(_legend(facts, Key("base", INK, shapes[0]), *shapes[1:]))
        gain, slack = each.estimates.gain, each.estimates.slack
        functions: list[tuple[str, torch.Tensor, Kind]] = [("Gain over base", gain, "signed")]
        functions += [
            (f"Slack of {name}", slack[..., i], slack_kind(facts, i))
            for i, name in enumerate(facts.problem.constraint_names)
        ]
        for title, values, kind in functions:
            axis = "gain over base" if kind == "signed" else "slack"
            drawn = maps.slice_of(facts, each.param, each.theta, values, kind, axis)
            rows = _table(facts, each, values, kind)
            heading = f"{title} along {space.names[each.param]}"
            blocks.append(Plot(heading, drawn, rows, keys, is_wide=False))
    return blocks


def _swing(each: Slice) -> float:
    """The range of the objective along a slice."""
    mean = each.estimates.gain[0].nan_to_num(0.0)
    return float(mean.max() - mean.min())


def _table(facts: Facts, each: Slice, values: torch.Tensor, kind: Kind) -> Table:
    """A slice at a few of its points."""
    name, num = facts.problem.space.names[each.param], len(each.theta)
    at = torch.linspace(0, num - 1, min(num, _ROWS_OF_A_SLICE)).round().long()
    shown = facts.problem.space.to_parameters(each.theta[at])
    return table(
        ("value", name, "number", [parameter_value(p[name]) for p in shown]),
        *interval("mean", kind, values[:, at]),
        ("prob", "P(feasible)", "prob", each.estimates.prob_feasible[at]),
    )
