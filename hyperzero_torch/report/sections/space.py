"""The section on the posterior over theta: maps of two parameters, slices of any number."""

from __future__ import annotations

import torch

from ...problem.space import Choice
from ...study.history import CONTROL
from ..data import tables
from ..data.facts import Facts
from ..data.surfaces import Slice, believe_at, is_plane, plane, slices
from ..data.tables import Kind, Table, name_of
from ..figures import maps
from ..figures.canvas import GREEN, INK, VERMILLION, Key
from .blocks import Block, Plot, Section, nothing_known

_MOST_SLICES = 24  # figures; beyond, only the parameters that matter most are drawn
_ROWS_OF_A_SLICE = 9


def surface(facts: Facts) -> Section:
    """The posterior of objective and guardrails over theta."""
    title = "Objective and guardrails over the space"
    if facts.posterior is None:
        return Section("surface", title, [nothing_known(facts)])
    blocks = [*(_maps(facts) if is_plane(facts) else []), *_slices(facts)]
    return Section("surface", title, blocks)


def _maps(facts: Facts) -> list[Block]:
    theta = plane(facts)
    believed = believe_at(facts, theta)
    keys = [Key("candidates", "#ffffff", "circle"), Key("base", "#111111", "square")]
    keys += [Key("oracle", GREEN, "diamond")] if facts.oracle is not None else []
    keys += [Key("recommended", VERMILLION, "star")] if facts.best.candidate_id != CONTROL else []
    rows = _candidates_on_the_map(facts)
    least = facts.config.min_prob_feasible
    border = (believed.prob_feasible, least) if facts.problem.num_constraints else None
    gain = maps.map_of(facts, theta, believed.gain[0], "signed", border=border)
    gain_keys = [*keys, Key(f"P(feasible) = {least:g}", "#ffffff", "border")] if border else keys
    blocks: list[Block] = [
        "Posterior means. Above each map is its scale.",
        Plot("Gain over base", gain, rows, tuple(gain_keys), is_wide=False),
    ]
    for i, name in enumerate(facts.problem.constraint_names):
        slack = believed.slack[0, :, i]
        drawn = maps.map_of(
            facts,
            theta,
            slack,
            tables.slack_kind(facts, i),
            diverging=True,
            border=(slack, 0.0),
        )
        slack_keys = (*keys, Key("slack = 0", INK, "dashed"))
        blocks.append(Plot(f"Slack of {name}", drawn, rows, slack_keys, is_wide=False))
    if border is not None:
        drawn = maps.map_of(facts, theta, believed.prob_feasible, "percent")
        blocks.append(Plot("P(feasible)", drawn, rows, tuple(keys), is_wide=False))
    return blocks


def _candidates_on_the_map(facts: Facts) -> Table:
    """What the maps say at the points that are marked."""
    ids = [CONTROL, *facts.by_weight(tables.MOST_EVIDENCE)]
    best = facts.best.candidate_id
    ids = ids if best in ids else [*ids, best]
    theta, names = facts.bucket.theta[ids], [name_of(c) for c in ids]
    if facts.oracle is not None:
        theta = torch.cat([theta, facts.oracle.theta.reshape(1, -1)])
        names.append("oracle")
    believed = believe_at(facts, theta)
    columns: list[tuple[str, str, Kind]] = [("candidate", "candidate", "text")]
    columns += [(f"p{i}", n, "number") for i, n in enumerate(facts.problem.space.names)]
    columns += [("gain", "gain over base", "signed")]
    values = [*theta.unbind(-1), believed.gain[0]]
    for i, name in enumerate(facts.problem.constraint_names):
        columns.append((f"s{i}", f"slack of {name}", tables.slack_kind(facts, i)))
        values.append(believed.slack[0, :, i])
    columns.append(("prob", "P(feasible)", "prob"))
    values.append(believed.prob_feasible)
    return tables.table(columns, [(n, *(float(v[r]) for v in values)) for r, n in enumerate(names)])


def _slices(facts: Facts) -> list[Block]:
    best = facts.best.candidate_id
    all_slices = slices(facts, facts.bucket.theta[best])
    names = facts.problem.space.names
    most = max(2, _MOST_SLICES // (1 + facts.problem.num_constraints))
    shown = sorted(sorted(all_slices, key=_swing, reverse=True)[:most], key=lambda s: s.param)
    lead = (
        "One parameter at a time, all others as in the "
        f"{'recommended candidate' if best != CONTROL else 'base'}, with "
        f"{facts.config.confidence:.0%} bands."
    )
    if len(shown) < len(all_slices):
        lead += (
            f" Drawn are the {len(shown)} of {len(all_slices)} parameters along which the "
            "objective varies most."
        )
    blocks: list[Block] = [lead]
    for param, theta, believed in shown:
        keys = _slice_keys(facts, isinstance(facts.problem.space.parameters[param], Choice))
        terms: list[tuple[str, torch.Tensor, Kind]] = [("Gain over base", believed.gain, "signed")]
        terms += [
            (f"Slack of {name}", believed.slack[..., i], tables.slack_kind(facts, i))
            for i, name in enumerate(facts.problem.constraint_names)
        ]
        for title, values, kind in terms:
            what = "gain over base" if kind == "signed" else "slack"
            drawn = maps.slice_of(facts, param, theta, values, kind, what)
            rows = _numbers_of_a_slice(facts, Slice(param, theta, believed), values, kind)
            where = f"{title} along {names[param]}"
            blocks.append(Plot(where, drawn, rows, keys, is_wide=False))
    return blocks


def _slice_keys(facts: Facts, is_choice: bool) -> tuple[Key, ...]:
    """Options are marked by symbols, numbers by vertical lines."""
    shapes = ("ring", "diamond", "star") if is_choice else ("dotted", "dashed", "solid")
    keys = [Key("base", INK, shapes[0])]
    keys += [Key("oracle", GREEN, shapes[1])] if facts.oracle is not None else []
    keys += [Key("recommended", VERMILLION, shapes[2])] if facts.best.candidate_id else []
    return tuple(keys)


def _swing(one: Slice) -> float:
    """How far the objective moves along a slice."""
    mean = one.believed.gain[0].nan_to_num(0.0)
    return float(mean.max() - mean.min())


def _numbers_of_a_slice(facts: Facts, one: Slice, values: torch.Tensor, kind: Kind) -> Table:
    """A slice at a few of its points."""
    name = facts.problem.space.names[one.param]
    num = len(one.theta)
    at = torch.linspace(0, num - 1, min(num, _ROWS_OF_A_SLICE)).round().long().tolist()
    shown = facts.problem.space.to_parameters(one.theta[at])
    return tables.table(
        [
            ("value", name, "number"),
            ("mean", "mean", kind),
            ("low", "low", kind),
            ("high", "high", kind),
            ("prob", "P(feasible)", "prob"),
        ],
        [
            (
                tables.parameter_value(p[name]),
                *values[:, i].tolist(),
                float(one.believed.prob_feasible[i]),
            )
            for i, p in zip(at, shown)
        ],
    )
