"""The command that writes a transfer package, with noise that is paid for where it is asked for."""

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
from ...study.evidence.active_set import fit_set
from ...study.evidence.bucket import gather
from ...study.evidence.pooling import Pooling
from ...study.history import History
from ...transfer import features, from_bucket
from ...transfer.sharing import package as packages
from ...transfer.sharing.budget import Budget
from ...transfer.sharing.noise import Clip, check_private, private_history
from ...transfer.source import Source
from ...tuner.tuner import Tuner
from ..study import AsJson, Config, DryRun, open_study

_Value = TypeVar("_Value")
notes = Console(stderr=True, soft_wrap=True)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}
_CHOSEN = (
    "chosen by the study; where it saw readings without noise, that choice is outside the guarantee"
)

KeyVariable = Annotated[
    str | None,
    typer.Option("--key-env", help="Environment variable that holds the key; never the key."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="File that holds the key and nothing else.")
]


class AccountantName(enum.StrEnum):
    """Who adds up what was spent."""

    RDP = "rdp"
    PLD = "pld"


def export(
    config: Config,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")],
    expires: Annotated[
        str, typer.Option(help="When it may no longer be used: 36h, 30d, 8w, or a time with zone.")
    ],
    scope: Annotated[
        list[str], typer.Option(help="What it may be used for; may be given repeatedly.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the domain; by default the study's name.")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(help="A feature of your own, NAME=NUMBER; may be given repeatedly."),
    ] = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Privacy: JSON file that keeps what was spent.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Privacy: the ledger's budget, over all releases.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Privacy: well below one over your users.")] = 1e-6,
    accountant: Annotated[
        AccountantName, typer.Option(help="Privacy: who adds up; as the ledger was made.")
    ] = AccountantName.RDP,
    clip: Annotated[
        list[str] | None,
        typer.Option(
            help="Privacy: METRIC=LOW:HIGH, the bounds to which the platform clips every user's "
            "value in an hour; for every metric. Never taken from the data at hand."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            help="Privacy: noise of each hour, over the sensitivity; by default the least that the "
            "rest of the budget allows."
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(help="Privacy: the ledger's name for this release, used once; the study's."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the study's evidence as a transfer package for others.

    With a key that both sides share, theirs can tell that the package is yours. The key comes from
    an environment variable or a file, since arguments can be read by every process of a machine.

    With --ledger every hour's sums get differentially private noise (the extra 'privacy') before
    anything is computed from them. The ledger is charged first, and refuses what goes over its
    budget; the variance of the noise becomes part of the evidence. A user is taken to be in every
    hour, in one arm, with values that the platform has clipped to --clip.

    Examples:

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu

      hyperzero transfer export -c tuning.yaml --out north.json --expires 30d --scope feed/eu
      --key-env TRANSFER_KEY --ledger ledger.json --epsilon 4 --clip views=0:200
    """
    now = datetime.now(UTC)
    end, key = read_expiry(expires, now), read_key(key_env, key_file)
    # Whatever can be refused is refused before anything is paid for.
    packages.check_export(out, end, scope, key=key, now=now)
    if ledger is not None and ledger.resolve() == out.resolve():
        raise ConfigError(f"--out and --ledger are both {out}; give each a file of its own")
    own, clips = (
        unique("--meta", map(_number, meta or ())),
        unique("--clip", map(_clip, clip or ())),
    )
    if ledger is None and (
        epsilon is not None or clips or noise is not None or release is not None
    ):
        raise ConfigError("--epsilon, --clip, --noise and --release go with a --ledger")
    if ledger is not None and epsilon is None:
        raise ConfigError("--ledger needs --epsilon, the budget of all its releases together")
    tuner = open_study(config)
    domain, told = name or tuner.study.name, tuner.history
    check_meta(tuner, own)
    source = evidence(tuner, domain, told, own)
    statement: dict[str, Any] | None = None
    if ledger is not None and epsilon is not None:
        what = release or tuner.study.name
        kept = ledger if ledger.exists() else None
        budget = Budget(epsilon, delta, kept, accountant.value)
        noise, after = check_private(told, clips, budget, what, noise)
        if dry_run:
            notes.print(Text(
                f"dry run: noise {noise:.4g} would take epsilon from {budget.spent():.4g} to "
                f"{after:.4g} of {epsilon:g}; nothing was written"
            ))  # fmt: skip
            return
        budget = Budget(epsilon, delta, ledger, accountant.value)
        told = private_history(told, clips, budget, what, noise)
        statement = budget.statement() | {
            "noise_multiplier": noise,
            "clips": {metric: list(bounds) for metric, bounds in clips.items()},
            "settings": _CHOSEN,
        }
        source = evidence(tuner, domain, told, own, drowned=True)
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
    tuner: Tuner, name: str, history: History, own: dict[str, float], drowned: bool = False
) -> Source:
    """The study's evidence by its own configuration, from its history or a noised one."""
    config = tuner.config
    bucket = gather(history, Pooling.of(config))
    if drowned and not bool((bucket.weight > 0).any()):
        raise ConfigError(
            "nothing is left under the noise: every arm has too few users for it. It was paid for "
            "all the same; give a larger --epsilon to a new ledger, or wait for more users"
        )
    found = features.of(history, config.rounds_per_day, bucket.dispersion, own)
    rows = fit_set(history, bucket, config)
    return from_bucket(tuner.problem, bucket, name, found, rows=rows)


def check_meta(tuner: Tuner, own: Mapping[str, float]) -> None:
    """Features of one's own stand beside those that readings give, never in their place.

    Raises:
        ConfigError: a name that is taken.
    """
    bucket = gather(tuner.history, Pooling.of(tuner.config))
    found = features.of(tuner.history, tuner.config.rounds_per_day, bucket.dispersion)
    if taken := sorted(set(own) & set(found)):
        raise ConfigError(
            f"--meta: {taken} are computed from the study's readings; give yours another name"
        )


def unique(option: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """Pairs as a mapping.

    Raises:
        ConfigError: a name comes twice.
    """
    found: dict[str, _Value] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"{option} names {name!r} twice; say it once")
        found[name] = value
    return found


def read_key(variable: str | None, file: Path | None) -> bytes | None:
    """The key that a variable or a file holds, without the end of a line.

    Raises:
        ConfigError: both, or neither holds one; the message never repeats it.
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
            f"--expires is 36h, 30d, 8w or a time with its zone such as 2027-01-31T12:00+00:00, "
            f"got {written!r:.60}"
        )
    return end.astimezone(UTC)


def short(value: Any) -> str:
    """A value of a statement, for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(pair: str) -> tuple[str, float]:
    name, mark, value = pair.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not mark or not name.strip() or not math.isfinite(number):
        raise ConfigError(f"--meta is NAME=NUMBER, got {pair!r:.60}")
    return name.strip(), number


def _clip(pair: str) -> tuple[str, Clip]:
    metric, mark, bounds = pair.rpartition("=")
    low, colon, high = bounds.partition(":")
    try:
        found = Clip(float(low), float(high))
    except ValueError:
        found = Clip(math.nan, math.nan)
    if not mark or not metric or not colon or not found.low < found.high:
        raise ConfigError(f"--clip is METRIC=LOW:HIGH with LOW below HIGH, got {pair!r:.60}")
    return metric, found
