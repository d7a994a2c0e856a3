"""Do deltas to the control of the same hour remove the daily rhythm? The paper's Figure 2.

    python bench/quality/figure_2.py [--asos FILE] --obd FILE

Autocorrelation by lag in hours of a raw metric, and of its relative difference to the control of
the same interval. Raw numbers are written to bench/results/figure_2.json, the figure (with
matplotlib) to bench/figures/figure_2.svg.

ASOS (by default the half that comes with the package): every stream (experiment, variant, metric)
with 20 usable intervals of its experiment's usual length (12 h or a day), each with 50 new users
or more in both groups; the treatment's mean per new user against its delta. A lag's
autocorrelation is the mean product of all pairs of intervals at that lag, over the variance; per
metric, the median and the quartiles over streams. Streams with intervals of 12 h can show a daily
rhythm; those with intervals of a day cannot.

OBD (hourly impressions and clicks of a campaign under two policies): the policy `random` is the
control of `bts`. The data are too sparse for the paper's claim about rates: most hours have no
click in at least one policy, so no hourly click rate has a delta. Impressions have one (a
difference of volumes, without a variance), and show the daily rhythm.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch

from hyperzero_torch import HyperZeroError, InputError
from hyperzero_torch.simulate import asos
from hyperzero_torch.stats import delta
from hyperzero_torch.stats.moments import Moments

BENCH = Path(__file__).parent.parent
MIN_USERS, MIN_INTERVALS, MIN_PAIRS = 50, 20, 10
LAGS = 14  # steps: a week of 12 h
HOURS = 72
# A pair of colours that colour-blind readers can distinguish.
COLOURS = {"raw": "#b2580c", "delta": "#1f5fa8"}


def autocorrelation(time: np.ndarray, value: np.ndarray, lags: range) -> list[float | None]:
    """By lag, in whole steps of ``time``; None if there are fewer than ``MIN_PAIRS`` pairs."""
    finite = np.isfinite(value)
    grid = np.full(int(time.max()) + 1 + lags.stop, np.nan)
    grid[time[finite]] = value[finite] - value[finite].mean()
    variance = np.nanmean(np.square(grid))
    values: list[float | None] = []
    for lag in lags:
        products = grid[: -lag or None] * grid[lag:]
        pairs = int(np.isfinite(products).sum())
        enough = pairs >= MIN_PAIRS and variance > 0
        values.append(round(float(np.nanmean(products) / variance), 4) if enough else None)
    return values


def asos_streams(path: str | None) -> list[dict]:
    """One record per stream with enough intervals: its step in hours, raw and delta by lag."""
    records = []
    for experiment in asos.experiments(path):
        streams = asos.load(experiment.id, path)
        parts = asos.intervals(streams)
        step = next(iter(experiment.steps))
        usual = (parts.days - step).abs() < 1e-6
        control = Moments(*(field[:, :1] for field in parts.moments))
        treated = Moments(*(field[:, 1:] for field in parts.moments))
        lift = delta.ratio(treated, control)
        usable = parts.usable[:, :1] & parts.usable[:, 1:] & (lift.var > 0)
        usable &= (control.count >= MIN_USERS) & (treated.count >= MIN_USERS)
        usable &= usual[:, None, None]
        time = (streams.days / step).round().long().numpy()
        for v, variant in enumerate(streams.variants):
            for m, metric in enumerate(streams.metrics):
                k = usable[:, v, m].numpy()
                if k.sum() < MIN_INTERVALS:
                    continue
                record = {"experiment": experiment.id, "variant": variant, "metric": metric}
                record |= {"step_hours": round(24 * step), "intervals": int(k.sum())}
                for name, series in (("raw", treated.mean), ("delta", lift.mean)):
                    values = series[:, v, m].numpy()[k]
                    record[name] = autocorrelation(time[k], values, range(1, LAGS + 1))
                records.append(record)
    if not records:
        raise InputError(f"{path or 'the bundled file'} has no stream of {MIN_INTERVALS} intervals")
    return records


def bands(records: list[dict], name: str) -> list[dict]:
    """By lag: hours, streams, and the quartiles over streams."""
    lines = []
    for step in range(LAGS):
        values = [r[name][step] for r in records if r[name][step] is not None]
        if values:
            low, median, high = np.percentile(values, [25, 50, 75]).tolist()
            line = {"hours": (step + 1) * records[0]["step_hours"], "streams": len(values)}
            lines.append(line | {"low": low, "median": median, "high": high})
    return lines


def obd(path: str) -> dict:
    """Per campaign: autocorrelation of impressions, and shares of hours without clicks."""
    counts: dict[str, dict[str, list[tuple[str, int, int]]]] = defaultdict(dict)
    try:
        with Path(path).open(newline="") as file:
            for row in csv.DictReader(file):
                hour = (row["hour_utc"], int(row["impressions"]), int(row["clicks"]))
                counts[row["campaign"]].setdefault(row["policy"], []).append(hour)
        series = {}
        for campaign, policies in counts.items():
            control, treated = (sorted(policies[name]) for name in ("random", "bts"))
            if [h for h, *_ in control] != [h for h, *_ in treated]:
                raise InputError(f"{path}: the policies of {campaign!r} have different hours")
            series[campaign] = np.array([[h[1:] for h in control], [h[1:] for h in treated]], float)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a file of hourly counts ({error}); expected CSV with the columns "
            "campaign, policy (random and bts), hour_utc, impressions, clicks"
        ) from None
    if not series:
        raise InputError(f"{path} has no rows")
    campaigns = {}
    for campaign, values in series.items():
        (shown0, clicks0), (shown, clicks) = values.transpose(0, 2, 1)
        time, lags = np.arange(len(shown)), range(1, HOURS + 1)
        difference = np.divide(shown, shown0, out=np.full_like(shown, np.nan), where=shown0 > 0)
        without = (clicks0 == 0) | (clicks == 0)
        campaigns[campaign] = {
            "hours": len(shown),
            "clicks": {"random": int(clicks0.sum()), "bts": int(clicks.sum())},
            "hours_without_a_click_in_the_control": float(np.mean(clicks0 == 0)),
            "hours_without_a_click_in_a_policy": float(np.mean(without)),
            "raw": autocorrelation(time, shown, lags),
            "delta": autocorrelation(time, difference - 1, lags),
        }
    return campaigns


def draw(groups: list[dict], thin: dict, path: Path) -> None:
    """A panel per metric and step length, one per campaign."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "figure_2"  # the same file for the same numbers
    from matplotlib import pyplot as plt

    rows = sorted({g["step_hours"] for g in groups})
    metrics = sorted({g["metric"] for g in groups})
    height = len(rows) + 1
    figure, axes = plt.subplots(
        height, len(metrics), figsize=(3.1 * len(metrics), 2.5 * height), sharey=True, squeeze=False
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for group in groups:
        axis = axes[rows.index(group["step_hours"]), metrics.index(group["metric"])]
        axis.set_visible(True)
        for name, colour in COLOURS.items():
            x, low, median, high = (
                [line[k] for line in group[name]] for k in ("hours", "low", "median", "high")
            )
            axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(x, median, color=colour, marker=".", label=name)
        title = f"{group['metric'].replace('_', ' ')}, {group['step_hours']} h intervals"
        axis.set_title(f"ASOS {title}\n{group['streams']} streams", fontsize=9)
    for axis, (campaign, series) in zip(axes[-1], thin.items()):
        axis.set_visible(True)
        for name, colour in COLOURS.items():
            points = [(h + 1, a) for h, a in enumerate(series[name]) if a is not None]
            axis.plot(*zip(*points), color=colour, label=name)
        axis.set_title(f"OBD impressions, campaign {campaign}\n1 h intervals", fontsize=9)
    for row, line in enumerate(axes):
        end = LAGS * rows[row] if row < len(rows) else HOURS
        for axis in line:
            axis.axhline(0, color="grey", linewidth=0.8)
            axis.set_xticks(range(0, end + 1, 48 if end > HOURS else 24))
            axis.grid(axis="x", alpha=0.3)
            axis.set_xlabel("lag, hours", fontsize=8)
            axis.set_ylim(-1, 1)
    axes[0, 0].set_ylabel("autocorrelation")
    axes[0, 0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    title, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asos", help="file of cumulative A/B tests (default: the bundled half)")
    parser.add_argument("--obd", help="file of hourly counts; by default not in the figure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        streams = asos_streams(options.asos)
        thin = obd(options.obd) if options.obd else {}
    except HyperZeroError as error:
        sys.exit(f"figure_2: {error}")
    groups = []
    for step, metric in sorted(Counter((r["step_hours"], r["metric"]) for r in streams)):
        part = [r for r in streams if (r["step_hours"], r["metric"]) == (step, metric)]
        group = {"step_hours": step, "metric": metric, "streams": len(part)}
        groups.append(group | {name: bands(part, name) for name in COLOURS})
    for group in groups:
        day = next(i for i, line in enumerate(group["raw"]) if line["hours"] >= 24)
        raw, lift = group["raw"][day]["median"], group["delta"][day]["median"]
        print(
            f"ASOS {group['metric']}, {group['step_hours']:2} h, {group['streams']:2} streams, "
            f"lag {group['raw'][day]['hours']} h: raw {raw:5.2f}, delta {lift:5.2f}"
        )
    for campaign, series in thin.items():
        print(
            f"OBD {campaign}, impressions, lag 24 h: raw {series['raw'][23]:.2f}, delta "
            f"{series['delta'][23]:.2f}; no click in at least one policy in "
            f"{series['hours_without_a_click_in_a_policy']:.0%} of {series['hours']} hours: no "
            "hourly click rate has a delta"
        )
    record = {"asos": groups, "obd": thin, "streams": streams}
    out = BENCH / "results" / "figure_2.json"
    out.write_text(json.dumps(record) + "\n")
    print(f"wrote {out.relative_to(BENCH.parent)}")
    try:
        draw(groups, thin, BENCH / "figures" / "figure_2.svg")
    except ModuleNotFoundError:
        sys.exit("figure_2: the figure needs matplotlib: pip install matplotlib")
    print("wrote bench/figures/figure_2.svg")


if __name__ == "__main__":
    main()
