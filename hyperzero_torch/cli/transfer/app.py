"""The commands ``inspect``, ``compare`` and ``space``, and the group of all transfer commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from rich.text import Text

from ...errors import ConfigError, PackageError
from ...transfer import similarity
from ...transfer import space_reduction as spaces
from ...transfer.model import correlation
from ...transfer.model.source_posterior import fit_source
from ...transfer.sharing import package as packages
from ..output import console, note, show, show_json
from ..own_files import check_apart
from ..study import AsJson, Config
from . import space as proposals
from .export import export, short
from .keys import Signers, keygen, revoke, verify
from .override import overrule
from .refresh import refresh
from .sources import Scope, Sources, evidence_of, gathered, target_of

_NUM_POINTS = 256

app = typer.Typer(
    name="transfer",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Share a study's evidence with other domains, and use theirs.

A transfer package is one JSON file with a study's settings, deltas and meta-features: no users, no
address. It names what it may be used for, and until when.

  1. hyperzero transfer export -c north.yaml --out north.json --expires 30d --scope feed/eu

  2. hyperzero transfer inspect north.json      (content, integrity, expiry)

  3. hyperzero transfer compare -c south.yaml north.json --scope feed/eu      (similarity)

  4. hyperzero transfer space -c south.yaml north.json east.json --scope feed/eu

  5. list it under 'sources' in south.yaml: the study then uses it as far as its own evidence
     supports it; hyperzero explain and hyperzero report show how far

  6. hyperzero transfer overrule -c south.yaml --discount north=0.5 --reason "..."

  7. hyperzero transfer refresh -c south.yaml      (read the newest evidence)

Packages are signed with Ed25519: keygen makes a key, export --sign-key signs, verify checks, and
revoke writes a file of keys and packages that are not to be used any more.

Only overrule, refresh and an export with noise change a study.""",
)
app.command()(export)
app.command()(overrule)
app.command()(refresh)
app.command()(keygen)
app.command()(verify)
app.command()(revoke)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A transfer package.")],
    scope: Annotated[
        str | None, typer.Option(help="Check that it may be used for this today.")
    ] = None,
    signer: Signers = None,
    as_json: AsJson = False,
) -> None:
    """Show a package's content, its integrity, what it may be used for, and until when.

    A changed file is refused. With --signer its origin is verified too; without it, a signature
    only proves that the owner of the key that is shown made it. A package that has expired, or that
    is not for --scope, is shown and then refused: exit code 3.
    """
    package = packages.look(file, signers=signer or None)
    refused: PackageError | None = None
    try:
        wanted = package.scopes[0] if scope is None else scope
        packages.in_force(package, wanted, what=f"package {str(file)!r}")
    except PackageError as error:
        refused = error
    if as_json:
        show_json(_plain(package) | {"refused": refused and str(refused)})
    else:
        _print(_facts(package))
        if package.source.meta_features:
            _print(_meta(package.source.meta_features))
    if refused is not None:
        raise refused


@app.command()
def compare(
    config: Config,
    sources: Sources = None,
    scope: Scope = None,
    signer: Signers = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write heat maps to an HTML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how similar domains are: by their meta-features, and by their evidence.

    By features: 1 for the same traffic, engagement, daily rhythm and noise, near 0 for very
    different domains. By evidence: the correlation of the two domains' deltas over the space, with
    a 90 % interval, which is wide if either has little evidence.

    This study is included as soon as it has evidence. Domains with similar features are expected to
    have similar effects until the evidence shows otherwise. Experts can override that (hyperzero
    transfer overrule).
    """
    target = target_of(config)
    problem = target.problem
    if html is not None:  # before the work, not after it
        from ...report import check_place

        check_place(html, "page")
        check_apart(config, html=html)
    aligned = gathered(target, sources, scope, signer or None)
    own = evidence_of(problem, target.tuner)
    domains = [*aligned, *([] if own is None else [own])]
    if len(domains) < 2:
        raise ConfigError(
            f"only {[d.name for d in domains]} has evidence, and a comparison needs two domains; "
            "name sources as packages or as journal-url#study"
        )
    by_features = similarity.by_features({d.name: d.meta for d in domains})
    by_evidence = correlation.by_evidence(
        {d.name: fit_source(d, problem) for d in domains},
        problem.metrics,
        problem.space.sobol(_NUM_POINTS, seed=0),
        torch.Generator().manual_seed(0),
    )
    rows = correlation.table(by_features, by_evidence)
    if html is not None:
        from ...report import write_comparison

        write_comparison(html, by_features, by_evidence)
    if as_json:
        left_out = by_features.left_out
        show_json(_no_nan({"pairs": rows, "scale": by_features.scale, "left_out": left_out}))
    else:
        _print(_pairs(rows, by_evidence.metrics))
        for name, why in by_features.left_out.items():
            show(f"feature {name} is left out: {why}", "yellow")
    if html is not None:
        note(f"wrote {html}")


@app.command()
def space(
    config: Config,
    sources: Sources = None,
    scope: Scope = None,
    signer: Signers = None,
    negligible: Annotated[
        float,
        typer.Option(help="Part of a metric's variance below which a parameter is negligible."),
    ] = 0.05,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Propose a smaller space where the sources agree: parameters to fix, bounds to narrow.

    A parameter is fixed at the base's value if its total Sobol index is below --negligible in
    every source and for every metric, with the given confidence. Bounds are narrowed to the region
    of every source's best settings. At least two sources have to agree.

    Nothing is changed. To use the proposal, write it into the study file of a new study. Keep some
    traffic on the full space: a space that was narrowed wrongly looks fine from inside.
    """
    target = target_of(config)
    problem = target.problem
    aligned = gathered(target, sources, scope, signer or None)
    posteriors = {source.name: fit_source(source, problem) for source in aligned}
    generator = torch.Generator().manual_seed(0)
    proposal = spaces.propose(problem, posteriors, generator, negligible, confidence)
    if as_json:
        show_json(_no_nan(proposals.plain(proposal)))
        return
    _print(proposals.reasons(proposal))
    _print(proposals.shares(proposal))
    if proposal.fixed or proposal.narrowed:
        show("\nProposed, not applied; for the study file of a new study:\n")
        show(proposals.as_yaml(proposal))
    else:
        show("\nNothing is proposed: the full space stays.")


def _print(table: Table) -> None:
    """A table at its full width, also where the terminal is narrower."""
    console.print(table, soft_wrap=True)


def _no_nan(value: Any) -> Any:
    """For JSON, which has no NaN: what is not known is null."""
    if isinstance(value, Mapping):
        return {name: _no_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(package: packages.Package) -> dict[str, Any]:
    source = package.source
    return {
        "name": source.name,
        "num_settings": len(source),
        "parameters": list(source.parameter_names),
        "metrics": list(source.metrics),
        "num_rounds": source.num_rounds,
        "created": package.created.isoformat(),
        "expires": package.expires.isoformat(),
        "scopes": list(package.scopes),
        "privacy": package.privacy and dict(package.privacy),
        "version": package.version,
        "signer": package.signer,
        "authentic": package.authentic,
        "sha256": package.sha256,
        "meta_features": dict(source.meta_features),
    }


def _facts(package: packages.Package) -> Table:
    source = package.source
    left = package.expires - datetime.now(UTC)
    days = left.total_seconds() / 86_400
    when = f"in {days:.1f} days" if days > 0 else f"{-days:.1f} days ago"
    private = "no noise was added"
    if package.privacy is not None:
        private = ", ".join(f"{k}: {short(v)}" for k, v in package.privacy.items())
    table = Table(
        "", "", title=f"package of {source.name}", title_justify="left", show_header=False
    )
    rows = {
        "settings": f"{len(source)} over {', '.join(source.parameter_names)}",
        "metrics": ", ".join(source.metrics),
        "rounds of a setting": "not known"
        if source.num_rounds is None
        else f"{source.num_rounds} of the setting that was served most",
        "made": package.created.isoformat(" ", "minutes"),
        "expires": f"{package.expires.isoformat(' ', 'minutes')} ({when})",
        "may be used for": ", ".join(package.scopes),
        "privacy": private,
        "version": str(package.version),
        "signed by": _signed(package),
        "sha256": package.sha256,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value, overflow="fold"))
    return table


def _signed(package: packages.Package) -> str:
    if package.signer is None:
        return "nobody: whoever can change the file can compute its checksum anew"
    trust = "a key that you trust" if package.authentic else "compare this key with its owner's"
    return f"{package.signer} ({trust})"


def _meta(features: Mapping[str, float]) -> Table:
    from ...transfer.features import KINDS

    table = Table("feature", "value", "unit", "what it is")
    for name, value in features.items():
        kind = KINDS.get(name.partition(":")[0])
        about = ("", "the domain's own") if kind is None else (kind.unit, kind.meaning)
        table.add_row(Text(name), f"{value:.4g}", *about)
    return table


def _pairs(rows: list[dict[str, correlation.Cell]], metrics: tuple[str, ...]) -> Table:
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


def _two(value: correlation.Cell) -> str:
    return "unknown" if value is None else f"{float(value):.2f}"
