"""Do 95 % intervals of the next delta cover 95 % on real A/B tests?

    python bench/quality/calibration.py [--data FILE] [--folds 5] [--out FILE]
    python -m bench.quality.calibration ...

Predicted is the delta of each interval of each stream (experiment, variant, metric), from the
intervals before it. An interval lies between two records of the file (cumulative moments,
subtracted); it needs at least 50 new users in both groups, a stream at least 8 such intervals.
All experiments are processed in parallel, as if they ran in one study: the prediction of interval t
uses the intervals before t of all streams, and nothing is fitted beforehand.

  formula   mean: the past deltas pooled by inverse variances; variance: theirs and the interval's
            own, by the delta method; interval: Gaussian
  ours      hyperzero_torch.stats.dispersion: dispersion of the stream shrunk towards its metric's,
            updated over time by errors of earlier predictions; interval: Student t

The columns: `covered` is the share of deltas inside their 95 % interval (aim: 93 to 97 %);
`robust std` is 1.4826 x the median absolute deviation of (delta - prediction) / (predicted robust
standard deviation), and `over scale` the same over the Student t's scale, which is slightly
narrower for heavy tails (aim: 0.9 to 1.1; for the formula both are the same).

The second table evaluates what a tuner pools: each stream is split in two, each part is pooled on
its own with the weights and factors of dispersion.fit, and the two means are compared; once with
alternating intervals, once the first half against the second, which also contains drift.

--folds N splits the experiments into N groups and runs each on its own, to measure the calibration
with fewer experiments.

The file: CSV, gzipped or not, with the columns experiment_id, variant_id, metric_id,
time_since_start, count_c, mean_c, variance_c, count_t, mean_t, variance_t; the moments
cumulative. By default the half of the ASOS tests that comes with the package.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from hyperzero_torch import HyperZeroError, InputError
from hyperzero_torch.simulate import asos
from hyperzero_torch.stats import delta, dispersion, evidence
from hyperzero_torch.stats.delta import Delta
from hyperzero_torch.stats.moments import Moments

RESULTS = Path(__file__).parent.parent / "results"
MIN_USERS = 50
MIN_INTERVALS = 8
COVERED, ROBUST_STD = (0.93, 0.97), (0.9, 1.1)


class Table(NamedTuple):
    """Deltas of all streams: rows are (stream, interval), a stream is (experiment, variant)."""

    streams: list[tuple[str, str]]
    metrics: list[str]
    stream: Tensor
    round: Tensor
    delta: Delta


class Predicted(NamedTuple):
    """Errors of one metric's predictions over scale, ``(predictions,)``; nu of the t."""

    stream: np.ndarray
    formula: np.ndarray
    ours: np.ndarray
    freedom: np.ndarray


def read(path: str | None) -> Table:
    """Interval deltas of every stream that is long enough, NaN elsewhere."""
    listing = asos.experiments(path)
    metrics = sorted({m for e in listing for m in asos.load(e.id, path).metrics})
    streams, stream, rounds, mean, var = [], [], [], [], []
    for experiment in listing:
        loaded = asos.load(experiment.id, path)
        parts = asos.intervals(loaded)
        control = Moments(*(field[:, :1] for field in parts.moments))
        treated = Moments(*(field[:, 1:] for field in parts.moments))
        lift = delta.ratio(treated, control)
        enough = (control.count >= MIN_USERS) & (treated.count >= MIN_USERS)
        usable = parts.usable[:, :1] & parts.usable[:, 1:] & enough & (lift.var > 0)
        usable &= usable.sum(0) >= MIN_INTERVALS
        columns = [metrics.index(m) for m in loaded.metrics]
        for v, variant in enumerate(loaded.variants):
            for field, into in zip(lift, (mean, var)):
                wide = torch.full((len(field), len(metrics)), torch.nan, dtype=torch.float64)
                wide[:, columns] = torch.where(usable[:, v], field[:, v], torch.nan)
                into.append(wide)
            stream.append(torch.full((len(lift.mean),), len(streams)))
            rounds.append(torch.arange(len(lift.mean)))
            streams.append((experiment.id, variant))
    if not mean or not bool(torch.cat(mean).isfinite().any()):
        raise InputError(
            f"{path or 'the bundled file'} has no stream of {MIN_INTERVALS} usable intervals with "
            f"{MIN_USERS} new users in both groups"
        )
    deltas = Delta(torch.cat(mean), torch.cat(var))
    return Table(streams, metrics, torch.cat(stream), torch.cat(rounds), deltas)


def predict(table: Table) -> list[Predicted]:
    """Predictions of every delta with earlier deltas in its stream; one entry per metric."""
    size = len(table.streams)
    ahead = dispersion.follow(table.stream, table.round, table.delta, size)
    error = table.delta.mean - ahead.mean
    plain, ours, freedom = (torch.full_like(error, torch.nan) for _ in range(3))
    state = evidence.init(size, len(table.metrics))
    for now in range(int(table.round.max()) + 1):
        past, rows = table.round < now, table.round == now
        age = (now - 1 - table.round[past]).double()[:, None]
        tails = dispersion.tails(error[past].square() / ahead.var[past], dispersion.DECAY**age)
        ours[rows] = error[rows] / (tails.scale * ahead.var[rows]).sqrt()
        freedom[rows] = tails.freedom.expand_as(error[rows])
        who, here = table.stream[rows], Delta(*(field[rows] for field in table.delta))
        observed = state.weight[who] > 0
        spread = here.var + torch.where(observed, 1 / state.weight[who], torch.nan)
        plain[rows] = (here.mean - state.mean[who]) / spread.sqrt()
        state = evidence.merge(state, evidence.summarise(who, here, 1 / here.var, size))
    predictions = []
    for m in range(len(table.metrics)):
        rows = ours[:, m].isfinite()
        columns = (table.stream[rows], plain[rows, m], ours[rows, m], freedom[rows, m])
        predictions.append(Predicted(*(column.numpy() for column in columns)))
    return predictions


def judge(predicted: Predicted) -> dict:
    """The row of the table for one metric."""
    if not len(predicted.ours):
        return {"predictions": 0}
    quantile, quartile = (student.ppf(level, predicted.freedom) for level in (0.975, 0.75))
    robust = predicted.ours / (asos.MAD_TO_STD * quartile)
    return {
        "predictions": len(predicted.ours),
        "covered_formula": float(np.mean(np.abs(predicted.formula) < 1.959964)),
        "covered": float(np.mean(np.abs(predicted.ours) < quantile)),
        "robust_std_formula": asos.robust_std(predicted.formula),
        "robust_std": asos.robust_std(robust),
        "over_scale": asos.robust_std(predicted.ours),
    }


def compare(table: Table, first: Tensor) -> list[dict]:
    """Pool both parts of each stream; their difference over its claimed standard deviation."""
    sides = []
    size = len(table.streams)
    for part in (first, ~first):
        who, rounds = table.stream[part], table.round[part]
        rounds = torch.unique(rounds, return_inverse=True)[1]
        lift = Delta(*(field[part] for field in table.delta))
        fitted = dispersion.fit(who, rounds, lift, 1 / lift.var, size)
        scaled = Delta(lift.mean, fitted.factor * lift.var)
        for used, weight in ((lift, 1 / lift.var), (scaled, fitted.weight)):
            state = evidence.summarise(who, used, weight, size)
            sides.append((state.mean, state.spread / state.weight.square()))
    errors = [(a[0] - b[0]) / (a[1] + b[1]).sqrt() for a, b in zip(sides[:2], sides[2:])]
    lines = []
    for m in range(len(table.metrics)):
        plain, ours = (e[:, m][e[:, m].isfinite()].numpy() for e in errors)
        line: dict = {"streams": len(ours)}
        for name, values in (("_formula", plain), ("", ours)) if len(ours) else ():
            line[f"covered{name}"] = float(np.mean(np.abs(values) < 1.959964))
            line[f"robust_std{name}"] = asos.robust_std(values)
        lines.append(line)
    return lines


def by_stream(table: Table, metric: int, predicted: Predicted) -> list[dict]:
    """Raw numbers: one record per stream."""
    records = []
    for stream in np.unique(predicted.stream):
        part = Predicted(*(column[predicted.stream == stream] for column in predicted))
        experiment, variant = table.streams[stream]
        record = {"experiment": experiment, "variant": variant, "metric": table.metrics[metric]}
        records.append(record | {k: round(v, 4) for k, v in judge(part).items()})
    return records


def split(table: Table, folds: int) -> list[Predicted]:
    """Predict each group of experiments on its own; the errors of all groups together."""
    names = sorted({experiment for experiment, _ in table.streams})
    together: list[list[Predicted]] = [[] for _ in table.metrics]
    for fold in range(folds):
        chosen = set(names[fold::folds])
        rows = torch.tensor([table.streams[s][0] in chosen for s in table.stream.tolist()])
        lift = Delta(*(field[rows] for field in table.delta))
        part = table._replace(stream=table.stream[rows], round=table.round[rows], delta=lift)
        for kept, predicted in zip(together, predict(part)):
            kept.append(predicted)
    return [Predicted(*map(np.concatenate, zip(*parts))) for parts in together]


def show(title: str, metrics: list[str], lines: list[dict]) -> None:
    """Print a table; a value outside its aim is marked."""
    columns = list(dict.fromkeys(key for line in lines for key in line))
    names = {"covered_formula": "formula covered", "robust_std_formula": "formula robust std"}
    heads = [names.get(c, c.replace("_", " ")) for c in columns]
    print(f"\n{title}\n{'':10}" + "".join(f"{head:>20}" for head in heads))
    for metric, line in zip(metrics, lines):
        cells = ""
        for column in columns:
            value = line.get(column)
            low, high = COVERED if column == "covered" else ROBUST_STD
            aimed = column in ("covered", "robust_std", "over_scale") and "predictions" in line
            mark = "*" if aimed and value is not None and not low <= value <= high else " "
            share = "covered" in column
            text = "-" if value is None else f"{value:.1%}" if share else f"{value:.3f}"
            cells += f"{value if isinstance(value, int) else text:>19}{mark}"
        print(f"{metric:10}{cells}")


def main(arguments: list[str] | None = None) -> None:
    title, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="file of cumulative A/B tests (default: the bundled half)")
    parser.add_argument(
        "--folds", type=int, default=0, help="also run this number of groups of experiments alone"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "calibration.json", help="raw numbers"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the tensors are small
    try:
        table = read(options.data)
    except HyperZeroError as error:
        sys.exit(f"calibration: {error}")
    predicted = predict(table)
    lines = [judge(metric) for metric in predicted]
    experiments = len({e for e, _ in table.streams})
    show(f"next delta, {experiments} experiments (* outside the aim)", table.metrics, lines)
    result = {"next_delta": dict(zip(table.metrics, lines))}
    half = table.round.new_zeros(len(table.streams)).scatter_reduce(
        0, table.stream, table.round, "amax"
    )
    cuts = {
        "intervals in turn": table.round % 2 == 0,
        "first half against second": table.round <= half[table.stream] // 2,
    }
    for name, first in cuts.items():
        compared = compare(table, first)
        show(f"pooled deltas, {name}", table.metrics, compared)
        result[f"pooled, {name}"] = dict(zip(table.metrics, compared))
    if options.folds > 1:
        apart = [judge(metric) for metric in split(table, options.folds)]
        show(f"next delta, {options.folds} groups of experiments alone", table.metrics, apart)
        result[f"{options.folds} groups alone"] = dict(zip(table.metrics, apart))
    raw = [r for m, metric in enumerate(predicted) for r in by_stream(table, m, metric)]
    machine = {"python": platform.python_version(), "torch": version("torch")}
    data = Path(options.data).name if options.data else "bundled"
    constants = {n: getattr(dispersion, n) for n in ("PRIOR", "DECAY", "ROBUST", "FREEDOMS")}
    record = {"machine": machine, "data": data, "constants": constants, **result, "streams": raw}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwrote {options.out.name}")


if __name__ == "__main__":
    main()
