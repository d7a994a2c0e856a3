"""The section on the parameters: the effect of each, and where the candidates lie."""

from __future__ import annotations

from ..data import candidate_rows
from ..data.facts import Facts
from ..data.sensitivity import Sensitivity, sensitivity
from ..data.tables import Table, Values, interval, table
from ..figures import candidate_plots, parallel
from ..figures.canvas import METRIC_LOOKS, SPOTS, Key, short
from .blocks import Block, Plot, Section, limited, no_estimates

_MOST_PARAMETERS = 24  # rows of the plot


def parameters(facts: Facts) -> Section:
    """Sensitivity, and parallel coordinates."""
    posterior = facts.posterior
    if posterior is None:
        return Section("parameters", "Effect of each parameter", [no_estimates(facts)])
    effects = sensitivity(facts, posterior)
    order = effects.share[0, 0].nan_to_num(0.0).argsort(descending=True, stable=True).tolist()
    blocks = _shares(facts, effects, order) + _lines(facts, sorted(order[: parallel.MOST_AXES]))
    return Section("parameters", "Effect of each parameter", blocks)


def _shares(facts: Facts, effects: Sensitivity, order: list[int]) -> list[Block]:
    functions = ["objective", *facts.problem.constraint_names]
    names = functions[: len(METRIC_LOOKS)]
    shown = order[:_MOST_PARAMETERS]
    rows = _table(facts, effects, order, names)
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


def _table(facts: Facts, effects: Sensitivity, order: list[int], names: list[str]) -> Table:
    parameters = [facts.problem.space.names[i] for i in order]
    columns: list[Values] = [("parameter", "parameter", "text", parameters)]
    for i, name in enumerate(names):
        columns += interval(f"share of {name}", "prob", effects.share[:, i, order], f"f{i}_")
    for m, name in enumerate(facts.problem.metrics):
        scales = effects.lengthscale[m, order]
        columns.append((f"l{m}", f"length scale of {name}", "number", scales))
    return table(*columns)


def _lines(facts: Facts, params: list[int]) -> list[Block]:
    rows = candidate_rows.over_parameters(facts, params)
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
