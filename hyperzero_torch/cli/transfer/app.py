"""Commands about other domains: export, inspect, compare, space."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import ConfigError, PackageError
from ...transfer import similarity
from ...transfer import space_reduction as spaces
from ...transfer.model.source_posterior import learn_alone
from ...transfer.sharing import package as packages
from ..study import AsJson, Config
from . import space as proposals
from .export import KeyFile, KeyVariable, export, read_key, short
from .override import overrule
from .refresh import refresh
from .sources import Scope, Sources, evidence_of, gathered, target_of

console = Console(soft_wrap=True)
notes = Console(stderr=True, soft_wrap=True)
_NUM_POINTS = 256

app = typer.Typer(
    name="transfer",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Tell other domains what this one has found, and see what theirs is worth here.

A transfer package is one JSON file with a study's settings, deltas and what its domain is like: no
users, no address. Its maker says for what it may be used, and until when.

  1. hyperzero transfer export -c north.yaml --out north.json --expires 30d --scope feed/eu

  2. hyperzero transfer inspect north.json      (what is in it, is it whole, is it in force?)

  3. hyperzero transfer compare -c south.yaml north.json --scope feed/eu      (are they alike?)

  4. hyperzero transfer space -c south.yaml north.json east.json --scope feed/eu

  5. name it under 'sources' in south.yaml: the study learns from it, as far as its own evidence
     tells, every hour; hyperzero explain and hyperzero report show how far

  6. hyperzero transfer overrule -c south.yaml --discount north=0.5 --reason "..."

  7. hyperzero transfer refresh -c south.yaml      (what have they learnt since?)

Only overrule and refresh change a study.""",
)
app.command()(export)
app.command()(overrule)
app.command()(refresh)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A transfer package.")],
    scope: Annotated[
        str | None, typer.Option(help="Check that it may be used for this, today.")
    ] = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a package holds, whether it is whole, and until when it may be used, for what.

    A changed file is refused. With the key that its maker shared it is also certain who made it;
    without, a checksum finds accidents only. A package that has expired, or that is not for
    --scope, is shown and then refused: exit code 3.
    """
    found = packages.look(file, key=read_key(key_env, key_file))
    refused: PackageError | None = None
    try:
        wanted = found.scopes[0] if scope is None else scope
        packages.in_force(found, wanted, what=f"package {str(file)!r}")
    except PackageError as error:
        refused = error
    if as_json:
        typer.echo(json.dumps(_plain(found) | {"refused": refused and str(refused)}, indent=2))
    else:
        console.print(_facts(found))
        if found.source.meta_features:
            console.print(_meta(found.source.meta_features))
    if refused is not None:
        raise refused


@app.command()
def compare(
    config: Config,
    sources: Sources = None,
    scope: Scope = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also draw heat maps, into one HTML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How alike domains are: by what they are like, and by what their evidence says.

    By features: 1 where two domains look the same (traffic, engagement, daily rhythm, noise), near
    0 where they do not. By evidence: the correlation of the two domains' deltas over the space,
    with a 90 % interval, which is wide where either knows little.

    This study is one of the domains as soon as it has evidence. What looks alike is expected to
    act alike, as far as evidence leaves that open; people can overrule it (hyperzero transfer
    overrule).
    """
    target = target_of(config)
    problem = target.problem
    if html is not None:  # before the work, not after it
        from ...report import check_place

        check_place(html, "page")
        if target.study.journal_url(target.folder) == f"sqlite:///{html.resolve()}":
            raise ConfigError(f"--html {html} is where the study's journal will be; name another")
    aligned = gathered(target, sources, scope, read_key(key_env, key_file))
    own = evidence_of(problem, target.tuner)
    domains = [*aligned, *([] if own is None else [own])]
    if len(domains) < 2:
        raise ConfigError(
            f"only {[d.name for d in domains]} has evidence, and it takes two to compare; name "
            "sources as packages or as journal-url#study"
        )
    looks = similarity.by_features({d.name: d.meta for d in domains})
    acts = similarity.by_evidence(
        {d.name: learn_alone(d, problem) for d in domains},
        problem.metrics,
        problem.space.sobol(_NUM_POINTS, seed=0),
        torch.Generator().manual_seed(0),
    )
    rows = similarity.table(looks, acts)
    if html is not None:
        from ...report import write_comparison

        write_comparison(html, looks, acts)
    if as_json:
        told = {"pairs": rows, "scale": looks.scale, "left_out": looks.left_out}
        _echo(told)
    else:
        console.print(_pairs(rows, acts.metrics))
        for name, why in looks.left_out.items():
            console.print(Text(f"feature {name} is left out: {why}", style="yellow"))
    if html is not None:
        notes.print(Text(f"wrote {html}"))


@app.command()
def space(
    config: Config,
    sources: Sources = None,
    scope: Scope = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    negligible: Annotated[
        float, typer.Option(help="Share of a metric's variance below which nothing hangs on it.")
    ] = 0.05,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Propose a smaller space where the sources agree: parameters to fix, bounds to narrow.

    A parameter is fixed at the base's value where in every source and for every metric its total
    Sobol index is surely below --negligible; bounds are narrowed to where every source's best
    settings surely lie. At least two sources have to agree.

    Nothing is changed. To take the proposal over, write it into a study file for a new study; keep
    some traffic on the wide space, since a space that was narrowed wrongly cannot be seen to be
    from inside it.
    """
    target = target_of(config)
    problem = target.problem
    aligned = gathered(target, sources, scope, read_key(key_env, key_file))
    learned = {one.name: learn_alone(one, problem) for one in aligned}
    generator = torch.Generator().manual_seed(0)
    found = spaces.propose(problem, learned, generator, negligible, confidence)
    if as_json:
        _echo(proposals.plain(found))
        return
    console.print(proposals.reasons(found))
    console.print(proposals.shares(found))
    if found.fixed or found.narrowed:
        console.print(Text("\nProposed, not applied; for the study file of a new study:\n"))
        console.print(Text(proposals.as_yaml(found)))
    else:
        console.print(Text("\nNothing is proposed: the whole space stays."))


def _echo(told: Mapping[str, Any]) -> None:
    """As JSON, which has no NaN: what is not known is null."""
    typer.echo(json.dumps(_known(told), indent=2, allow_nan=False))


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(found: packages.Package) -> dict[str, Any]:
    source = found.source
    return {
        "name": source.name,
        "num_settings": len(source),
        "parameters": list(source.parameter_names),
        "metrics": list(source.metrics),
        "num_rounds": source.num_rounds,
        "created": found.created.isoformat(),
        "expires": found.expires.isoformat(),
        "scopes": list(found.scopes),
        "privacy": found.privacy and dict(found.privacy),
        "authentic": found.authentic,
        "sha256": found.sha256,
        "meta_features": dict(source.meta_features),
    }


def _facts(found: packages.Package) -> Table:
    source = found.source
    left = found.expires - datetime.now(UTC)
    days = left.total_seconds() / 86_400
    when = f"in {days:.1f} days" if days > 0 else f"{-days:.1f} days ago"
    private = "no noise was added"
    if found.privacy is not None:
        private = ", ".join(f"{k}: {short(v)}" for k, v in found.privacy.items())
    table = Table(
        "", "", title=f"package of {source.name}", title_justify="left", show_header=False
    )
    rows = {
        "settings": f"{len(source)} over {', '.join(source.parameter_names)}",
        "metrics": ", ".join(source.metrics),
        "rounds of a setting": "not known"
        if source.num_rounds is None
        else f"{source.num_rounds} of the setting that was served most",
        "made": found.created.isoformat(" ", "minutes"),
        "expires": f"{found.expires.isoformat(' ', 'minutes')} ({when})",
        "may be used for": ", ".join(found.scopes),
        "privacy": private,
        "made with our key": "yes" if found.authentic else "not checked, no key was given",
        "sha256": found.sha256,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value, overflow="fold"))
    return table


def _meta(features: Mapping[str, float]) -> Table:
    from ...transfer.features import KINDS

    table = Table("feature", "value", "unit", "what it is")
    for name, value in features.items():
        kind = KINDS.get(name.partition(":")[0])
        told = ("", "the domain's own") if kind is None else (kind.unit, kind.meaning)
        table.add_row(Text(name), f"{value:.4g}", *told)
    return table


def _pairs(rows: list[dict[str, similarity.Cell]], metrics: tuple[str, ...]) -> Table:
    table = Table("domain", "other", "by features")
    for metric in metrics:
        table.add_column(Text(f"{metric}: by evidence"))
    for row in rows:
        cells = [
            f"{_two(row[f'mean:{m}'])} [{_two(row[f'low:{m}'])}, {_two(row[f'high:{m}'])}]"
            for m in metrics
        ]
        features = f"{_two(row['features'])} ({row['num_common']} in common)"
        table.add_row(Text(str(row["domain"])), Text(str(row["other"])), features, *cells)
    return table


def _two(value: similarity.Cell) -> str:
    return "unknown" if value is None else f"{float(value):.2f}"
