"""A study's history as plain rows, which plots are drawn from and readers can check."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch

from ...errors import ExpressionError
from ...problem.expressions import parse_constraint
from ...study.history import CONTROL
from .facts import Facts
from .surfaces import believe_deltas

Kind: TypeAlias = Literal["text", "whole", "number", "percent", "signed", "prob"]
Cell: TypeAlias = str | float | None

MOST_EVIDENCE = 25
MOST_BELIEVED = 40
SIGMAS = 1.96


class Column(NamedTuple):
    """``key`` is for plots, ``label`` for readers; "signed" is a percentage with its sign."""

    key: str
    label: str
    kind: Kind


class Table(NamedTuple):
    """Rows under columns; None where nothing is known."""

    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]

    def column(self, key: str) -> list[Cell]:
        """One column's cells."""
        index = [c.key for c in self.columns].index(key)
        return [row[index] for row in self.rows]


def table(columns: Iterable[tuple[str, str, Kind]], rows: Iterable[Sequence[object]]) -> Table:
    """Rows of numbers, strings or NaN; whatever is not finite becomes None."""
    return Table(
        tuple(Column(*c) for c in columns), [tuple(as_cell(value) for value in row) for row in rows]
    )


def as_cell(value: object) -> Cell:
    """A number, a text, or None for what is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def show(cell: Cell, kind: Kind) -> str:
    """A cell as a reader sees it: fractions in percent, nothing known as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if kind == "whole":
        return f"{cell:.0f}"
    if kind == "prob":
        return f"{100 * cell:.1f} %"
    if kind in ("percent", "signed"):
        digits = 2 if abs(cell) >= 1e-3 or cell == 0 else 3
        value = round(100 * cell, digits) + 0.0  # + 0.0: no "-0.00"
        sign = "+" if kind == "signed" else ""
        return f"{value:{sign}.{digits}f} %"
    return f"{cell:.4g}"


def name_of(candidate: int) -> str:
    """How a report calls a candidate."""
    return "control" if candidate == CONTROL else f"c{candidate}"


def parameters(facts: Facts) -> Table:
    """The recommended theta beside the base's, and the oracle's where it is known."""
    space = facts.problem.space
    columns: list[tuple[str, str, Kind]] = [
        ("parameter", "parameter", "text"),
        ("recommended", "recommended", "number"),
        ("base", "base", "number"),
    ]
    served = [facts.best.parameters, facts.problem.base]
    if facts.oracle is not None:
        columns.append(("oracle", "oracle", "number"))
        served += space.to_parameters(facts.oracle.theta.reshape(1, -1))
    return table(
        columns,
        [(name, *(parameter_value(p[name]) for p in served)) for name in space.names],
    )


def parameter_value(value: object) -> str | float:
    """A parameter as a cell: options as text, numbers as numbers."""
    if isinstance(value, str | bool):
        return str(value)
    return float(value)  # type: ignore[arg-type]


def guardrails(facts: Facts) -> Table:
    """Each guardrail at the recommended candidate: believed slack, and how surely it holds."""
    best = facts.best.candidate_id
    rows: list[tuple[object, ...]] = []
    if facts.problem.num_constraints and not math.isnan(facts.best.objective_mean):
        delta, var = (f[best : best + 1] for f in (facts.belief.delta_mean, facts.belief.delta_var))
        believed = believe_deltas(facts, delta, var)
        for i, name in enumerate(facts.problem.constraint_names):
            kind = slack_kind(facts, i)
            slack = [show(as_cell(s), kind) for s in believed.slack[:, 0, i].tolist()]
            rows.append((name, slack[0], f"{slack[1]} … {slack[2]}", float(believed.holds[0, i])))
    return table(
        [
            ("guardrail", "guardrail", "text"),
            ("mean", "slack", "number"),
            ("interval", f"{facts.config.confidence:.0%} interval", "number"),
            ("holds", "P(holds)", "prob"),
        ],
        rows,
    )


def slack_kind(facts: Facts, constraint: int) -> Kind:
    """Deltas are fractions; levels are plain numbers in the metric's unit."""
    problem = facts.problem
    if not problem.sees_levels:
        return "percent"
    try:
        written = parse_constraint(problem.constraint_names[constraint], problem.metrics)
    except ExpressionError:  # a callable, or a name of its own: any unit is possible
        return "number"
    return "number" if written.levels else "percent"


def beliefs(facts: Facts) -> Table:
    """The most promising candidates by the lower bound of the objective, best first."""
    belief = facts.belief
    score = torch.where(belief.lcb.isfinite(), belief.lcb, -torch.inf)
    score[CONTROL] = -torch.inf
    order = torch.argsort(score, descending=True, stable=True)[:MOST_BELIEVED]
    ids = [c for c in order.tolist() if score[c] > -torch.inf]
    best = facts.best.candidate_id
    if best not in (CONTROL, *ids):
        ids = [*ids[: MOST_BELIEVED - 1], best]
    gain = [facts.gain(field) for field in (belief.mean, belief.lcb, belief.ucb)]
    return table(
        [
            ("candidate", "candidate", "text"),
            ("mean", "believed gain", "signed"),
            ("low", "low", "signed"),
            ("high", "high", "signed"),
            ("prob", "P(feasible)", "prob"),
            ("rounds", "rounds with evidence", "whole"),
        ],
        [
            (
                name_of(c),
                *(float(g[c]) for g in gain),
                float(belief.prob_feasible[c]),
                int(facts.bucket.num_rounds[c]),
            )
            for c in ids
        ],
    )


def evidence_of(facts: Facts, metric: int) -> Table:
    """Own evidence beside the posterior, for the candidates with the most evidence."""
    posterior, bucket = facts.posterior, facts.bucket
    assert posterior is not None  # the caller's branch
    ids = facts.by_weight(MOST_EVIDENCE)
    best = facts.best.candidate_id
    if best not in (CONTROL, *ids):
        ids = [*ids[: MOST_EVIDENCE - 1], best]
    x = facts.problem.space.to_unit(bucket.theta[ids]).to(posterior.x)
    mean, var = (field[:, metric].cpu() for field in posterior.marginal(x))
    truth = facts.true_delta(bucket.theta[ids])
    columns: list[tuple[str, str, Kind]] = [
        ("candidate", "candidate", "text"),
        ("own", "own evidence", "signed"),
        ("own_half", "±", "percent"),
        ("posterior", "posterior", "signed"),
        ("posterior_half", "±", "percent"),
    ]
    values = [
        bucket.mean[ids, metric],
        SIGMAS * bucket.var[ids, metric].sqrt(),
        mean,
        SIGMAS * var.sqrt(),
    ]
    if truth is not None:
        columns.append(("truth", "truth", "signed"))
        values.append(truth[:, metric])
    order = torch.argsort(mean, descending=True, stable=True).tolist()
    return table(columns, [(name_of(ids[i]), *(float(v[i]) for v in values)) for i in order])
