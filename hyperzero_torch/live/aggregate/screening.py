"""Rows that cannot be counted are left out and counted; all others stay as if these were not there.

    a row without a user or of no round      the row is left out
    an exposure without a candidate          the row is left out
    an exposure of another study or epoch    the row is left out
    an exposure to candidate -1              the user is outside the experiment; counted by round
    an event without a metric                the row is left out
    an event without a usable value          its user is left out for this metric and round

A value is usable where it is finite and not absurd: at most 2^40 times the median of the non-zero
values of its metric and round. Without the bound one value of 1e300 would take all digits of the
round's sums. Each round has units of its own, so a large value changes no digit of another round.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import narwhals as nw

from .frames import collect, in_window
from .metrics import UPPER

#: A value above so many times the median of the non-zero values of its round is absurd.
ABSURD = 2.0**40
#: In place of a candidate, where an application logs users outside the experiment too.
OUTSIDE = -1
_OUTSIDE_ROWS = "a user outside the experiment"

#: By round, the study and epochs under which its plan was served.
Served: TypeAlias = Mapping[int, tuple[str, frozenset[str]]]


class Screened(NamedTuple):
    """Events that can be summed.

    Args:
        events: with ``flaw``, 1 where the value is not usable (it is 0 there), else 0.
        units: by source, the unit of each round's sums: a power of 2, its largest value over 2^26.
        flawed: by source, whether any value is not usable.
        flawed_users: per round and source, users with such a value.
        faults: rows that were left out, by reason.
    """

    events: nw.LazyFrame[Any]
    units: tuple[dict[int, float], ...]
    flawed: tuple[bool, ...]
    flawed_users: dict[int, dict[str, int]]
    faults: dict[str, int]


class Exposures(NamedTuple):
    """The window's exposures with a user, a round and a candidate.

    Args:
        rows: exposures of users who take part.
        outside: per round, users who are logged as outside the experiment.
        faults: rows that were left out, by reason.
    """

    rows: nw.LazyFrame[Any]
    outside: dict[int, int]
    faults: dict[str, int]


def usable_exposures(
    exposures: nw.LazyFrame[Any], window: list[int], served: Served | None = None
) -> Exposures:
    """The window's exposures that count, and what was left out.

    Another journal of the study, or another study, has candidates of its own under the same
    numbers. A row that names neither study nor epoch counts.
    """
    is_outside = nw.col("candidate") == OUTSIDE
    flaws = {
        "no user": _no_user(exposures),
        "no valid round": _invalid("round"),
        _OUTSIDE_ROWS: is_outside,
        "no valid candidate": _invalid("candidate"),
    }
    foreign = _foreign(exposures, served or {})
    if foreign is not None:
        flaws = {"another study or epoch": foreign, **flaws}
    in_time = exposures.filter(in_window(window))
    rows, faults = _without("exposures", in_time, flaws)
    outside: dict[int, int] = {}
    if faults.pop(f"exposures with {_OUTSIDE_ROWS}", 0):
        here = in_time if foreign is None else in_time.filter(~foreign)
        users = here.filter(is_outside & ~_no_user(exposures) & ~_invalid("round"))
        numbers = users.select("round", "user").unique().group_by("round")
        for row in collect(numbers.agg(nw.len().alias("users")), "users outside"):
            outside[int(row["round"])] = int(row["users"])
    return Exposures(rows, outside, faults)


def screen_events(events: nw.LazyFrame[Any], window: list[int], sources: Sequence[str]) -> Screened:
    """The window's events with a user, a round and a metric, their values screened."""
    flaws = {
        "no user": _no_user(events),
        "no valid round": _invalid("round"),
        "no metric": nw.col("metric").is_null(),
    }
    events, faults = _without("events", events.filter(in_window(window)), flaws)
    events = events.filter(nw.col("metric").is_in(sources))
    value = nw.col("value")
    is_number = ~value.is_null() & value.is_finite()
    events = events.with_columns(
        nw.when(is_number).then(value).otherwise(0.0).alias("value"),
        nw.when(is_number).then(0).otherwise(1).alias("flaw"),
    )
    size = nw.col("value").abs()
    sizes = events.with_columns(nw.when(size > 0).then(size).alias("size"))
    totals = collect(
        sizes.group_by("round", "metric").agg(
            nw.col("size").max().alias("largest"),
            nw.col("size").min().alias("smallest"),
            nw.col("flaw").sum().alias("flaws"),
        ),
        "events",
    )
    limits = _limits(sizes, totals)
    for (round_, source), limit in limits.items():
        here = (nw.col("round") == round_) & (nw.col("metric") == source)
        absurd = here & (nw.col("value").abs() > limit)
        events = events.with_columns(
            nw.when(absurd).then(1).otherwise(nw.col("flaw")).alias("flaw"),
            nw.when(absurd).then(0.0).otherwise(nw.col("value")).alias("value"),
        )
    largest = {(int(t["round"]), str(t["metric"])): float(t["largest"] or 0.0) for t in totals}
    if limits:
        kept = events.group_by("round", "metric").agg(nw.col("value").abs().max().alias("largest"))
        rows = collect(kept, "events")
        largest = {(int(t["round"]), str(t["metric"])): float(t["largest"]) for t in rows}
    suspects = {s for _, s in limits} | {str(t["metric"]) for t in totals if t["flaws"]}
    flawed_users: dict[int, dict[str, int]] = defaultdict(dict)
    if suspects:
        users = events.filter(nw.col("flaw") > 0).select("round", "metric", "user").unique()
        numbers = users.group_by("round", "metric").agg(nw.len().alias("users"))
        for row in collect(numbers, "events without a usable value"):
            flawed_users[int(row["round"])][str(row["metric"])] = int(row["users"])
    units: tuple[dict[int, float], ...] = tuple({} for _ in sources)
    for (round_, source), top in largest.items():
        units[sources.index(source)][round_] = unit_of(top)
    named = {source for by_source in flawed_users.values() for source in by_source}
    return Screened(events, units, tuple(s in named for s in sources), dict(flawed_users), faults)


def usable_covariates(
    covariates: nw.LazyFrame[Any], sources: Sequence[str]
) -> tuple[nw.LazyFrame[Any], list[float], dict[str, int]]:
    """Covariates with a user and a usable value, the unit of each source, and the rows left out.

    A user whose row is left out counts as one without a covariate.
    """
    value = nw.col("value")
    flaws = {
        "no user": _no_user(covariates),
        "no metric": nw.col("metric").is_null(),
        "a value that is missing or not finite": value.is_null() | ~value.is_finite(),
    }
    mine = nw.col("metric").is_in(sources)
    rows = covariates.filter(mine | nw.col("metric").is_null())
    rows, faults = _without("covariates", rows, flaws)
    rows = rows.filter(mine)
    size = nw.col("value").abs()
    sizes = rows.with_columns(
        nw.when(size > 0).then(size).alias("size"), nw.lit(0, dtype=nw.Int64).alias("round")
    )
    totals = collect(
        sizes.group_by("round", "metric").agg(
            nw.col("size").max().alias("largest"), nw.col("size").min().alias("smallest")
        ),
        "covariates",
    )
    limits = _limits(sizes, totals)
    absurd = {
        f"a value of {source!r} above {limit:.3g}": (nw.col("metric") == source) & (size > limit)
        for (_, source), limit in limits.items()
    }
    if absurd:
        rows, more = _without("covariates", rows, absurd)
        faults |= more
    largest = {str(t["metric"]): float(t["largest"] or 0.0) for t in totals}
    if limits:
        kept = rows.group_by("metric").agg(nw.col("value").abs().max().alias("largest"))
        largest = {str(t["metric"]): float(t["largest"]) for t in collect(kept, "covariates")}
    return rows, [unit_of(largest.get(source, 0.0)) for source in sources], faults


def unit_of(largest: float) -> float:
    """A power of 2: the upper bound of values up to ``largest``, over 2^26."""
    return math.ldexp(1.0, max(math.frexp(largest)[1], -900)) / UPPER


def per_round(values: Mapping[int, float], default: float = 1.0) -> nw.Expr:
    """The value of each row's round, as an expression of a few branches: one for each value."""
    rounds: dict[float, list[int]] = defaultdict(list)
    for round_, value in values.items():
        rounds[value].append(round_)
    ordered = sorted(rounds, key=lambda value: len(rounds[value]))
    expression: nw.Expr = nw.lit(ordered[-1] if ordered else default, dtype=nw.Float64)
    for value in ordered[:-1]:
        here = nw.col("round").is_in(sorted(rounds[value]))
        expression = nw.when(here).then(nw.lit(value, dtype=nw.Float64)).otherwise(expression)
    return expression


def _limits(
    sizes: nw.LazyFrame[Any], totals: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, str], float]:
    """The limit of usable values, where a round has values above it.

    The median is computed only where the range is so wide that a value may be absurd.
    """
    wide = [
        t
        for t in totals
        if t["largest"] is not None and float(t["largest"]) / ABSURD > float(t["smallest"])
    ]
    if not wide:
        return {}
    rounds, sources = {int(t["round"]) for t in wide}, {str(t["metric"]) for t in wide}
    candidates = sizes.filter(
        nw.col("round").is_in(sorted(rounds))
        & nw.col("metric").is_in(sorted(sources))
        & ~nw.col("size").is_null()
    )
    medians = collect(
        candidates.group_by("round", "metric").agg(
            nw.col("size").quantile(0.5, interpolation="linear").alias("median")
        ),
        "the median of the events' values",
    )
    by_key = {(int(m["round"]), str(m["metric"])): float(m["median"]) for m in medians}
    limits = {}
    for total in wide:
        key = (int(total["round"]), str(total["metric"]))
        limit = min(by_key[key] * ABSURD, 1e300)
        if float(total["largest"]) > limit:
            limits[key] = limit
    return limits


def _without(
    name: str, frame: nw.LazyFrame[Any], flaws: Mapping[str, nw.Expr]
) -> tuple[nw.LazyFrame[Any], dict[str, int]]:
    """The rows without a flaw, and the number of the others by their first flaw."""
    kind: nw.Expr = nw.lit(0, dtype=nw.Int64)
    for i, condition in reversed(list(enumerate(flaws.values(), start=1))):
        kind = nw.when(condition).then(i).otherwise(kind)
    marked = frame.with_columns(kind.alias("fault"))
    flawed = marked.filter(nw.col("fault") > 0).group_by("fault").agg(nw.len().alias("rows"))
    numbers = {int(row["fault"]): int(row["rows"]) for row in collect(flawed, name)}
    if not numbers:
        return frame, {}
    faults = {
        f"{name} with {what}": numbers[i] for i, what in enumerate(flaws, start=1) if i in numbers
    }
    return marked.filter(nw.col("fault") == 0).drop("fault"), faults


def _no_user(frame: nw.LazyFrame[Any]) -> nw.Expr:
    """A user who is null, or an empty text: clients send it for people who are not signed in."""
    user = nw.col("user")
    is_text = isinstance(frame.collect_schema()["user"], nw.String)
    return user.is_null() | (user == "") if is_text else user.is_null()


def _foreign(exposures: nw.LazyFrame[Any], served: Served) -> nw.Expr | None:
    """Rows that name a study or an epoch that did not serve their round; None without names."""
    columns = exposures.collect_schema().names()
    rounds: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    for round_, whose in served.items():
        rounds[whose].append(round_)
    conditions = []
    for (study, epochs), numbers in rounds.items():
        ours = {"study": [study], "epoch": sorted(epochs)}
        for column in ("study", "epoch"):
            if column in columns:
                value = nw.col(column)
                is_other = ~value.is_null() & (value != "") & ~value.is_in(ours[column])
                conditions.append(nw.col("round").is_in(numbers) & is_other)
    return nw.any_horizontal(*conditions, ignore_nulls=True) if conditions else None


def _invalid(column: str) -> nw.Expr:
    return nw.col(column).is_null() | (nw.col(column) < 0)
