"""``hyperzero transfer export``: write a package, with differentially private noise on request."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ...errors import ConfigError
from ...study.config import StudyConfig
from ...transfer.duplicates import own_evidence
from ...transfer.sharing import package as packages
from ...transfer.sharing import releases
from ...transfer.sharing.budget import Budget, Owner
from ...transfer.sharing.noise import Clip, check_private, private_history
from ...transfer.sharing.signing import SigningKey
from ...transfer.source import features_of, from_history
from ..output import note, show_json
from ..own_files import check_apart
from ..study import AsJson, Config, DryRun, open_study

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}
_CHOSEN = (
    "chosen by the study; if it saw readings without noise, that choice is outside the guarantee"
)


class AccountantName(enum.StrEnum):
    """How privacy losses are composed."""

    RDP = "rdp"
    PLD = "pld"


def export(
    config: Config,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")],
    expires: Annotated[
        str, typer.Option(help="When it expires: 36h, 30d, 8w, or a time with its zone.")
    ],
    scope: Annotated[list[str], typer.Option(help="What it may be used for; may be repeated.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the domain; by default the study's.")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(help="A feature of your own, NAME=NUMBER; may be repeated."),
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option("--sign-key", help="File with the private key, of 'transfer keygen'."),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rises from package to package; by default the seconds since 1970. Who has "
            "learned from a package refuses an older one.",
        ),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Privacy: JSON file that records all releases.")
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(
            help="Privacy: name of the users that the ledger is about; by default the study's."
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Privacy: the ledger's budget for all releases together.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Privacy: well below 1 / number of users.")] = 1e-6,
    accountant: Annotated[
        AccountantName, typer.Option(help="Privacy: the accountant that the ledger was made with.")
    ] = AccountantName.RDP,
    clip: Annotated[
        list[str] | None,
        typer.Option(
            help="Privacy: METRIC=LOW:HIGH for every metric, the bounds to which the platform "
            "clips each user's value in an hour. Never derive them from the data at hand."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            help="Privacy: noise of each hour over the sensitivity; by default the smallest that "
            "fits into the remaining budget."
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(help="Privacy: unique name of the release; by default the study's."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the study's evidence as a transfer package for other domains.

    With --sign-key, recipients can verify that the package is yours, by your public key
    (hyperzero transfer keygen).

    Without --ledger the evidence goes out without noise; the study file has to allow it
    (export_without_noise: true).

    With --ledger, differentially private noise is added to every hour's sums before anything is
    computed from them (extra 'privacy'). The ledger is charged first and refuses releases beyond
    its budget; the variance of the noise becomes part of the evidence. A user is assumed to be in
    every hour, in one arm, with values that the platform has clipped to --clip. A ledger belongs to
    one study and one population, and the study's journal knows how many releases it has had: a new
    ledger in its place is refused.

    Examples:

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu
      --sign-key north.key

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu
      --sign-key north.key --ledger ledger.json --epsilon 4 --clip views=0:200
    """
    now = datetime.now(UTC)
    end = read_expiry(expires, now)
    key = None if sign_key is None else SigningKey.from_file(sign_key)
    # Refuse everything that can be refused before the ledger is charged.
    packages.check_export(out, end, scope, signer=key, version=version, now=now)
    check_apart(config, out=out)
    check_apart(config, ledger=ledger)
    if ledger is not None and ledger.resolve() == out.resolve():
        raise ConfigError(f"--out and --ledger are both {out}; use two different files")
    own = pairs("--meta", "NAME=NUMBER", meta, _feature)
    clips = pairs("--clip", "METRIC=LOW:HIGH with LOW below HIGH", clip, _clip)
    private_only = (epsilon, noise, release, population)
    if ledger is None and (clips or any(o is not None for o in private_only)):
        raise ConfigError("--epsilon, --clip, --noise, --release and --population need a --ledger")
    if ledger is not None and epsilon is None:
        raise ConfigError("--ledger needs --epsilon, the budget of all its releases together")
    tuner = open_study(config)
    if ledger is None and not StudyConfig.from_file(config).export_without_noise:
        raise ConfigError(
            f"without --ledger the evidence would go out without noise; where that is meant, say "
            f"so in {config.name}: export_without_noise: true"
        )
    domain, history = name or tuner.study.name, tuner.history
    if taken := sorted(set(own) & set(features_of(history))):
        raise ConfigError(
            f"--meta: {taken} are computed from the study's readings; use other names"
        )
    source = from_history(tuner.problem, history, domain, own)
    statement: dict[str, Any] | None = None
    if ledger is not None and epsilon is not None:
        what = release or tuner.study.name
        existing = ledger if ledger.exists() else None
        users = population or tuner.study.name
        owner = Owner(tuner.study.name, users)
        budget = Budget(epsilon, delta, existing, accountant.value, owner)
        releases.check(history, users, existing, budget)
        noise, after = check_private(history, clips, budget, what, noise)
        if dry_run:
            note(
                f"dry run: noise {noise:.4g} would take epsilon from {budget.spent():.4g} to "
                f"{after:.4g} of {epsilon:g}; nothing was written"
            )
            return
        budget = Budget(epsilon, delta, ledger, accountant.value, owner)
        history = private_history(history, clips, budget, what, noise)
        releases.record(tuner.study, users, budget)
        statement = budget.statement() | {
            "noise_multiplier": noise,
            "clips": {metric: list(bounds) for metric, bounds in clips.items()},
            "settings": _CHOSEN,
        }
        if own_evidence(tuner.problem, history) is None:
            raise ConfigError(
                "the noise leaves no evidence: every arm has too few users for it. The ledger was "
                "charged; use a larger --epsilon with a new ledger, or wait for more users"
            )
        source = from_history(tuner.problem, history, domain, own)
    if dry_run:
        note(f"dry run: {len(source)} settings would be written; nothing was")
        return
    how: dict[str, Any] = {"signer": key, "version": version, "now": now}
    sha256 = packages.export(source, out, end, scope, privacy=statement, **how)
    if as_json:
        facts = {"path": str(out), "sha256": sha256, "num_settings": len(source)}
        facts |= {"expires": end.isoformat(), "scopes": scope, "privacy": statement}
        show_json(facts)
    signed = f"signed by {key.public}" if key else "not signed: no key was given"
    note(
        f"wrote {out}: {len(source)} settings of {domain!r}, for {scope} until "
        f"{end.isoformat(' ', 'minutes')}; {signed}"
    )
    if statement is not None:
        note(
            f"privacy: epsilon {statement['epsilon']:.4g} of {epsilon:g} is spent at delta "
            f"{delta:g}; which settings are listed was {_CHOSEN}"
        )


def pairs(
    option: str,
    form: str,
    given: list[str] | None,
    read: Callable[[str, str], tuple[_Name, _Value]],
) -> dict[_Name, _Value]:
    """``NAME=VALUE`` texts as a mapping; ``ConfigError`` for another form, or a name twice.

    ``read`` makes a key and a value of the two sides, and refuses them by a ``ValueError``.
    """
    mapping: dict[_Name, _Value] = {}
    for text in given or ():
        name, _, written = text.rpartition("=")
        try:
            key, value = read(name, written)
        except ValueError:
            raise ConfigError(f"{option} must be {form}, got {text!r:.60}") from None
        if key in mapping:
            raise ConfigError(f"{option} names {name!r} twice; name it once")
        mapping[key] = value
    return mapping


def read_expiry(written: str, now: datetime) -> datetime:
    """``36h``, ``30d``, ``8w`` from now, or a time with its zone; else a ``ConfigError``."""
    span = _SPAN.fullmatch(written.strip())
    try:
        if span is not None:
            return now + timedelta(hours=float(span[1]) * _HOURS[span[2]])
        end = datetime.fromisoformat(written.strip())
    except (ValueError, OverflowError):
        end = None
    if end is None or end.utcoffset() is None:
        raise ConfigError(
            "--expires must be 36h, 30d, 8w or a time with its zone, e.g. 2027-01-31T12:00+00:00, "
            f"got {written!r:.60}"
        )
    return end.astimezone(UTC)


def short(value: Any) -> str:
    """A value for display."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _feature(name: str, written: str) -> tuple[str, float]:
    number = float(written)
    if not name.strip() or not math.isfinite(number):
        raise ValueError
    return name.strip(), number


def _clip(metric: str, written: str) -> tuple[str, Clip]:
    low, _, high = written.partition(":")
    clip = Clip(float(low), float(high))
    if not metric or not clip.low < clip.high:
        raise ValueError
    return metric, clip
