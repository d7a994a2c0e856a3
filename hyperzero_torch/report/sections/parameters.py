"""The section on the parameters: how much hangs on each, and where the candidates stand."""

from __future__ import annotations

from ..data import tables
from ..data.facts import Facts
from ..data.sensitivity import Sensitivity, sensitivity
from ..data.tables import Kind, Table
from ..figures import candidate_plots, parallel
from ..figures.canvas import SPOTS, Key, short
from .blocks import Block, Plot, Section, nothing_known

_MOST_PARAMETERS = 24  # rows of the plot


def parameters(facts: Facts) -> Section:
    """Sensitivity, and parallel coordinates."""
    title = "What each parameter does"
    if facts.posterior is None:
        return Section("parameters", title, [nothing_known(facts)])
    found = sensitivity(facts)
    order = found.share[0, 0].nan_to_num(0.0).argsort(descending=True, stable=True).tolist()
    blocks = [*_shares(facts, found, order), *_lines(facts, sorted(order[: parallel.MOST_AXES]))]
    return Section("parameters", title, blocks)


def _shares(facts: Facts, found: Sensitivity, order: list[int]) -> list[Block]:
    names = ["objective", *facts.problem.constraint_names][: len(candidate_plots.METRIC_LOOKS)]
    shown = order[:_MOST_PARAMETERS]
    rows = _table(facts, found, order, names)
    drawn = candidate_plots.shares_of_parameters(
        rows._replace(rows=rows.rows[: len(shown)]),
        [short(facts.problem.space.names[i]) for i in shown],
        len(names),
    )
    looks = zip(names, candidate_plots.METRIC_LOOKS)
    keys = tuple(Key(name, color, SPOTS[symbol]) for name, (color, _, symbol) in looks)
    lead = (
        "Sensitivity: of a function's variance over the whole space, the share that would be left "
        "if all parameters but this one were known (total effect; where parameters work together "
        "the shares sum to more than 1). Computed for joint draws of the posterior; a bar spans "
        f"{facts.config.confidence:.0%} of the draws, so a long one says that this is not known "
        "yet. The table adds lengthscales: how far a parameter has to move, in parts of its "
        "range, before a metric forgets."
    )
    if len(shown) < len(order):
        lead += f" Drawn are the {len(shown)} parameters with the largest of {len(order)}."
    num = 1 + facts.problem.num_constraints
    if len(names) < num:
        lead += f" Drawn are the objective and {len(names) - 1} of {num - 1} guardrails."
    if facts.problem.space.constraints:
        lead += " All of each parameter's range is taken, also where constraints forbid it."
    return [lead, Plot("Sensitivity", drawn, rows, keys)]


def _table(facts: Facts, found: Sensitivity, order: list[int], names: list[str]) -> Table:
    columns: list[tuple[str, str, Kind]] = [("parameter", "parameter", "text")]
    for i, name in enumerate(names):
        columns += [
            (f"mean{i}", f"share of {name}", "prob"),
            (f"low{i}", "low", "prob"),
            (f"high{i}", "high", "prob"),
        ]
    columns += [
        (f"l{m}", f"lengthscale for {name}", "number")
        for m, name in enumerate(facts.problem.metrics)
    ]
    shares = found.share[:, : len(names)]
    return tables.table(
        columns,
        [
            (
                facts.problem.space.names[i],
                *shares[:, :, i].T.flatten().tolist(),
                *found.lengthscale[:, i].tolist(),
            )
            for i in order
        ],
    )


def _lines(facts: Facts, params: list[int]) -> list[Block]:
    rows = parallel.rows(facts, params)
    drawn, width = parallel.draw(facts, rows, params)
    num = len(facts.problem.space.names)
    lead = (
        f"Parallel coordinates: each line is one of the {len(rows.rows) - 1} candidates with the "
        "best lower bounds, or the base; each vertical is a parameter from its lowest value to its "
        "highest, the last is the believed gain."
    )
    if len(params) < num:
        lead += f" Drawn are the {len(params)} of {num} parameters with the largest sensitivity."
    plot = Plot("Candidates over the parameters", drawn, rows, parallel.keys(facts))
    return [lead, plot._replace(min_width=width)]
