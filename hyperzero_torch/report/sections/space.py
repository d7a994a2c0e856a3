"""The sections on the space: estimates over theta, and the effect of each parameter."""

from __future__ import annotations

import torch

from ...problem.space import Choice
from ...study.history import CONTROL
from ...surrogate.protocol import FittedPosterior
from ..data.candidate_rows import (
    on_the_map,
    over_parameters,
    slack_kind,
    slack_label,
    slacks_in_words,
)
from ..data.facts import Facts
from ..data.sensitivity import Sensitivity, sensitivity
from ..data.surfaces import Slice, at_theta, is_plane, plane, slices
from ..data.tables import Kind, Table, Values, interval, parameter_value, table
from ..figures import candidate_plots, maps, parallel
from ..figures.canvas import GREEN, INK, METRIC_LOOKS, SPOTS, VERMILLION, Key, short
from .blocks import Block, Plot, Section, limited, no_estimates

_MOST_SLICES = 24  # figures; beyond, only the parameters with the largest effects are drawn
_ROWS_OF_A_SLICE = 9
_MOST_PARAMETERS = 24  # rows of the plot of effects


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


def _maps(facts: Facts, posterior: FittedPosterior) -> list[Block]:
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
        "Posterior means. The scale is above each map." + _slacks(facts),
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


def _slices(facts: Facts, posterior: FittedPosterior) -> list[Block]:
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
    lead += _slacks(facts)
    blocks: list[Block] = [lead]
    for each in shown:
        is_choice = isinstance(space.parameters[each.param], Choice)
        shapes = ("ring", "diamond", "star") if is_choice else ("dotted", "dashed", "solid")
        keys = tuple(_legend(facts, Key("base", INK, shapes[0]), *shapes[1:]))
        gain, slack = each.estimates.gain, each.estimates.slack
        functions: list[tuple[str, torch.Tensor, Kind, str]] = [
            ("Gain over base", gain, "signed", "gain over base")
        ]
        functions += [
            (f"Slack of {name}", slack[..., i], slack_kind(facts, i), slack_label(facts, i))
            for i, name in enumerate(facts.problem.constraint_names)
        ]
        for title, values, kind, axis in functions:
            drawn = maps.slice_of(facts, each.param, each.theta, values, kind, axis)
            rows = _slice_table(facts, each, values, kind)
            heading = f"{title} along {space.names[each.param]}"
            blocks.append(Plot(heading, drawn, rows, keys, is_wide=False))
    return blocks


def _slacks(facts: Facts) -> str:
    return f" {slacks_in_words(facts)}" if facts.problem.num_constraints else ""


def _swing(each: Slice) -> float:
    """The range of the objective along a slice."""
    mean = each.estimates.gain[0].nan_to_num(0.0)
    return float(mean.max() - mean.min())


def _slice_table(facts: Facts, each: Slice, values: torch.Tensor, kind: Kind) -> Table:
    """A slice at a few of its points."""
    name, num = facts.problem.space.names[each.param], len(each.theta)
    at = torch.linspace(0, num - 1, min(num, _ROWS_OF_A_SLICE)).round().long()
    shown = facts.problem.space.to_parameters(each.theta[at])
    return table(
        ("value", name, "number", [parameter_value(p[name]) for p in shown]),
        *interval("mean", kind, values[:, at]),
        ("prob", "P(feasible)", "prob", each.estimates.prob_feasible[at]),
    )


def parameters(facts: Facts) -> Section:
    """Sensitivity, and parallel coordinates."""
    posterior = facts.posterior
    if posterior is None:
        return Section("parameters", "Effect of each parameter", [no_estimates(facts)])
    effects = sensitivity(facts, posterior)
    order = effects.share[0, 0].nan_to_num(0.0).argsort(descending=True, stable=True).tolist()
    blocks = _shares(facts, effects, order) + _parallel(facts, sorted(order[: parallel.MOST_AXES]))
    return Section("parameters", "Effect of each parameter", blocks)


def _shares(facts: Facts, effects: Sensitivity, order: list[int]) -> list[Block]:
    functions = ["objective", *facts.problem.constraint_names]
    names = functions[: len(METRIC_LOOKS)]
    shown = order[:_MOST_PARAMETERS]
    rows = _effects_table(facts, effects, order, names)
    drawn = candidate_plots.shares_of_parameters(
        rows.head(len(shown)), [short(facts.problem.space.names[i]) for i in shown], len(names)
    )
    looks = zip(names, METRIC_LOOKS)
    keys = tuple(Key(name, color, SPOTS[symbol]) for name, (color, _, symbol) in looks)
    lead = (
        "Sensitivity: the share of a function's variance over the whole space that would be left "
        "if all parameters but this one were known (total effect). With interactions the shares "
        "sum to more than 1. Computed for joint draws of the posterior; a bar spans "
        f"{facts.config.confidence:.0%} of the draws. The table adds length scales, as fractions "
        "of each parameter's range."
    )
    lead += limited(len(shown), len(order), "parameters", ", those with the largest effects")
    lead += limited(len(names), len(functions), "functions")
    if facts.problem.space.constraints:
        lead += " Each parameter varies over its whole range, also where constraints exclude it."
    return [lead, Plot("Sensitivity", drawn, rows, keys)]


def _effects_table(facts: Facts, effects: Sensitivity, order: list[int], names: list[str]) -> Table:
    parameters = [facts.problem.space.names[i] for i in order]
    columns: list[Values] = [("parameter", "parameter", "text", parameters)]
    for i, name in enumerate(names):
        columns += interval(f"share of {name}", "prob", effects.share[:, i, order], f"f{i}_")
    for m, name in enumerate(facts.problem.metrics):
        scales = effects.lengthscale[m, order]
        columns.append((f"l{m}", f"length scale of {name}", "number", scales))
    return table(*columns)


def _parallel(facts: Facts, params: list[int]) -> list[Block]:
    rows = over_parameters(facts, params)
    drawn, width = parallel.draw(facts, rows, params)
    lead = (
        f"Parallel coordinates: a line for each of the {len(rows.rows) - 1} candidates with the "
        "highest lower bounds, and for the base. Each vertical axis is a parameter from its lowest "
        "to its highest value; the last is the estimated gain."
    )
    total = facts.problem.space.num_params
    lead += limited(len(params), total, "parameters", ", those with the largest effects")
    plot = Plot("Candidates over the parameters", drawn, rows, parallel.keys(facts))
    return [lead, plot._replace(min_width=width)]
