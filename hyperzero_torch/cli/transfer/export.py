"""``hyperzero transfer export``: write a package, with differentially private noise on request."""

from __future__ import annotations

import enum
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from ...errors import ConfigError
from ...study.history import History
from ...transfer.duplicates import own_evidence
from ...transfer.sharing import package as packages
from ...transfer.sharing.budget import Budget
from ...transfer.sharing.noise import Clip, check_private, private_history
from ...transfer.source import Source, features_of, from_history
from ...tuner.tuner import Tuner
from ..study import AsJson, Config, DryRun, open_study

_Value = TypeVar("_Value")
notes = Console(stderr=True, soft_wrap=True)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}
_CHOSEN = (
    "chosen by the study; if it saw readings without noise, that choice is outside the guarantee"
)

KeyVariable = Annotated[
    str | None,
    typer.Option("--key-env", help="Environment variable that holds the key, not the key itself."),
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="File that holds only the key.")]


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
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Privacy: JSON file that records all releases.")
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

    With a shared key, recipients can verify that the package is yours. The key comes from an
    environment variable or a file, since other processes can read a command's arguments.

    With --ledger, differentially private noise is added to every hour's sums before anything is
    computed from them (extra 'privacy'). The ledger is charged first and refuses releases beyond
    its budget; the variance of the noise becomes part of the evidence. A user is assumed to be in
    every hour, in one arm, with values that the platform has clipped to --clip.

    Examples:

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu
      --key-env TRANSFER_KEY --ledger ledger.json --epsilon 4 --clip views=0:200
    """
    now = datetime.now(UTC)
    end, key = read_expiry(expires, now), read_key(key_env, key_file)
    # Refuse everything that can be refused before the ledger is charged.
    packages.check_export(out, end, scope, key=key, now=now)
    if ledger is not None and ledger.resolve() == out.resolve():
        raise ConfigError(f"--out and --ledger are both {out}; use two different files")
    own, clips = (
        unique("--meta", map(_number, meta or ())),
        unique("--clip", map(_clip, clip or ())),
    )
    if ledger is None and (
        epsilon is not None or clips or noise is not None or release is not None
    ):
        raise ConfigError("--epsilon, --clip, --noise and --release need a --ledger")
    if ledger is not None and epsilon is None:
        raise ConfigError("--ledger needs --epsilon, the budget of all its releases together")
    tuner = open_study(config)
    domain, history = name or tuner.study.name, tuner.history
    check_meta(tuner, own)
    source = evidence(tuner, domain, history, own)
    statement: dict[str, Any] | None = None
    if ledger is not None and epsilon is not None:
        what = release or tuner.study.name
        existing = ledger if ledger.exists() else None
        budget = Budget(epsilon, delta, existing, accountant.value)
        noise, after = check_private(history, clips, budget, what, noise)
        if dry_run:
            notes.print(Text(
                f"dry run: noise {noise:.4g} would take epsilon from {budget.spent():.4g} to "
                f"{after:.4g} of {epsilon:g}; nothing was written"
            ))  # fmt: skip
            return
        budget = Budget(epsilon, delta, ledger, accountant.value)
        history = private_history(history, clips, budget, what, noise)
        statement = budget.statement() | {
            "noise_multiplier": noise,
            "clips": {metric: list(bounds) for metric, bounds in clips.items()},
            "settings": _CHOSEN,
        }
        source = evidence(tuner, domain, history, own, noised=True)
    if dry_run:
        notes.print(Text(f"dry run: {len(source)} settings would be written; nothing was"))
        return
    sha256 = packages.export(source, out, end, scope, privacy=statement, key=key, now=now)
    if as_json:
        facts = {"path": str(out), "sha256": sha256, "num_settings": len(source)}
        facts |= {"expires": end.isoformat(), "scopes": scope, "privacy": statement}
        typer.echo(json.dumps(facts, indent=2))
    notes.print(Text(
        f"wrote {out}: {len(source)} settings of {domain!r}, for {scope} until "
        f"{end.isoformat(' ', 'minutes')}; {'signed' if key else 'not signed: no key was given'}"
    ))  # fmt: skip
    if statement is not None:
        notes.print(Text(
            f"privacy: epsilon {statement['epsilon']:.4g} of {epsilon:g} is spent at delta "
            f"{delta:g}; which settings are listed was {_CHOSEN}"
        ))  # fmt: skip


def evidence(
    tuner: Tuner, name: str, history: History, own: dict[str, float], noised: bool = False
) -> Source:
    """The study's evidence by its own configuration, from its history or a noised one."""
    if noised and own_evidence(tuner.problem, history) is None:
        raise ConfigError(
            "the noise leaves no evidence: every arm has too few users for it. The ledger was "
            "charged; use a larger --epsilon with a new ledger, or wait for more users"
        )
    return from_history(tuner.problem, history, name, own)


def check_meta(tuner: Tuner, own: Mapping[str, float]) -> None:
    """Refuse features of one's own under the names of computed ones.

    Raises:
        ConfigError: a name that is taken.
    """
    if taken := sorted(set(own) & set(features_of(tuner.history))):
        raise ConfigError(
            f"--meta: {taken} are computed from the study's readings; use other names"
        )


def unique(option: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """Pairs as a mapping.

    Raises:
        ConfigError: a name comes twice.
    """
    mapping: dict[str, _Value] = {}
    for name, value in pairs:
        if name in mapping:
            raise ConfigError(f"{option} names {name!r} twice; name it once")
        mapping[name] = value
    return mapping


def read_key(variable: str | None, file: Path | None) -> bytes | None:
    """The key in a variable or a file, without a trailing line break.

    Raises:
        ConfigError: both are given, or it cannot be read; the message never contains the key.
    """
    if variable is not None and file is not None:
        raise ConfigError("give --key-env or --key-file, not both")
    if variable is not None:
        if not os.environ.get(variable):
            raise ConfigError(
                f"--key-env: the environment has no variable {variable!r}, or it is empty"
            )
        return os.environ[variable].encode()
    if file is None:
        return None
    try:
        mode, raw = file.stat().st_mode, file.read_bytes()
    except OSError as error:
        raise ConfigError(f"--key-file {file} cannot be read ({error.strerror})") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        notes.print(Text(f"--key-file {file} can be read by others; chmod 600 it", style="yellow"))
    return raw.rstrip(b"\r\n")


def read_expiry(written: str, now: datetime) -> datetime:
    """``36h``, ``30d``, ``8w`` from now, or a time with its zone.

    Raises:
        ConfigError: neither.
    """
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


def _number(pair: str) -> tuple[str, float]:
    name, mark, value = pair.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not mark or not name.strip() or not math.isfinite(number):
        raise ConfigError(f"--meta must be NAME=NUMBER, got {pair!r:.60}")
    return name.strip(), number


def _clip(pair: str) -> tuple[str, Clip]:
    metric, mark, bounds = pair.rpartition("=")
    low, colon, high = bounds.partition(":")
    try:
        bounds_of_metric = Clip(float(low), float(high))
    except ValueError:
        bounds_of_metric = Clip(math.nan, math.nan)
    if not mark or not metric or not colon or not bounds_of_metric.low < bounds_of_metric.high:
        raise ConfigError(f"--clip must be METRIC=LOW:HIGH with LOW below HIGH, got {pair!r:.60}")
    return metric, bounds_of_metric
