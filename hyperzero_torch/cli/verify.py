"""``hyperzero verify``: whether a journal holds what was written, and heads to note elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, InputError, StudyNotFoundError
from ..study.config import StudyConfig
from ..study.integrity import sign as sign_chain
from ..study.journal.address import Address
from ..study.journal.keys import KeyRing
from ..study.journal.sql import SqlJournal
from ..study.journal.verified import Fault, Head, Verification
from .output import error, note, show, show_json
from .study import AsJson

BROKEN = 8  # the exit code for a journal that was changed
_MOST_SHOWN = 20


def verify(
    journal: Annotated[
        str,
        typer.Argument(
            help="URL of the journal, the path of a SQLite file, or a study file (.yaml) whose "
            "journal is meant."
        ),
    ],
    study: Annotated[str | None, typer.Option(help="Only this study.")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="HASH@POSITION that was noted elsewhere, or a file with what this command printed "
            "earlier. Only so is a missing tail noticed.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="File with the keys of the chain, one a line; by default those of the "
            "environment.",
        ),
    ] = None,
    sign: Annotated[
        bool,
        typer.Option(
            "--sign",
            help="Sign the chain from here on, where the key is new: an entry says so. Give --head "
            "too: nothing else tells what was written from what somebody has written anew.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a journal holds what was written, and print its head. Exit code 8: it does not.

    The entries of a study form a hash chain: the hash of each covers the one before it and every
    stored column, plans and readings included. A changed value, a rewritten reason, a deleted,
    added or moved entry no longer fit, and are named. Readings that a compaction deleted are no
    fault: the chain covers what they were.

    The head is the last hash and its position. Print it to a place that the journal's writers
    cannot change, and give it with --head: that the last entries are missing is noticed only so,
    and so is a chain that was computed anew by somebody who can write to the journal.

    With a key nobody without it can compute the chain anew. Set HYPERZERO_JOURNAL_KEY, or
    HYPERZERO_JOURNAL_KEY_FILE with the path of a file that only you can read, for every process
    that writes to the journal; a process without the key is then refused. To change the key, put
    the new one before the old one. Make one with:
    python -c 'import secrets; print(secrets.token_hex(32))'
    A study that was begun without a key is signed from --sign on; until then a process with a key
    does not append to it.

    A journal of an earlier format begins its chain, which is not signed, when it is opened; what
    was changed before cannot be seen.

    Examples:

      hyperzero verify study.db > heads.txt

      hyperzero verify study.db --head heads.txt

      hyperzero verify study.db --head heads.txt --key-file journal.key --sign

      hyperzero verify postgresql://tuner@db/hyperzero --study feed --json
    """
    heads = {} if head is None else _heads(head, study)
    ring = None if key_file is None else KeyRing.from_file(key_file)
    opened = SqlJournal(_url(journal), create=False, keys=ring)
    try:
        names = opened.studies()
        if study is not None and study not in names:
            opened.header(study)  # says which studies there are
        faults = opened.faults() if study is None else []
        if study is None:
            faults += _missing(names, heads)
        if None in heads and len(names if study is None else [study]) != 1:
            raise ConfigError(
                f"--head {head} names no study, and the journal holds {names}; name one with "
                "--study"
            )
        chosen = {
            name: heads.get(name, heads.get(None)) for name in (names if study is None else [study])
        }
        for name, noted in chosen.items() if sign and not faults else ():
            is_new = sign_chain(opened, name, noted)
            note(f"study {name!r}: {'signed from here on' if is_new else 'it is signed already'}")
        results = [opened.verify(name, noted) for name, noted in chosen.items()]
    finally:
        opened.close()
    is_broken = bool(faults) or not all(result.ok for result in results)
    if as_json:
        show_json(
            {
                "ok": not is_broken,
                "faults": [fault._asdict() for fault in faults],
                "studies": [result.to_dict() for result in results],
            }
        )
    _show(results, faults, as_json)
    if is_broken:
        raise typer.Exit(BROKEN)


def _show(results: list[Verification], faults: list[Fault], as_json: bool) -> None:
    for result in results:
        if result.ok and result.head is not None:
            if not as_json:
                show(f"{result.head} {_written(result.study)}")
            note(_summary(result))
    every = [*faults, *(fault for result in results for fault in result.faults)]
    for fault in every[:_MOST_SHOWN]:
        error(str(fault))
    if len(every) > _MOST_SHOWN:
        error(f"... and {len(every) - _MOST_SHOWN} more; --json has all")
    if every:
        error("the journal does not hold what was written; compare it with a backup")


def _summary(result: Verification) -> str:
    words = f"study {result.study!r}: {result.entries} entries are what was written"
    if result.signed_from is not None:
        words += f"; signed from entry {result.signed_from} on, at last with key {result.key}"
    begins = result.begins
    if begins is not None and begins.entries_before:
        words += (
            f"; the chain was begun at {begins.at} with the {begins.entries_before} entries that "
            "were there, so it cannot say what happened to them before"
        )
    return words


def _missing(names: list[str], heads: dict[str | None, Head]) -> list[Fault]:
    """Studies that a file of heads names, and that are not there."""
    gone = [name for name in heads if name is not None and name not in names]
    return [Fault(name, None, "it is missing; a head of it was noted") for name in gone]


def _heads(given: str, study: str | None) -> dict[str | None, Head]:
    """Heads by study, from a file or a text; by None where no study is named."""
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        try:
            return {study: Head.of(given)}
        except InputError as problem:
            raise ConfigError(f"--head: {problem}; there is no file of this name either") from None
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as problem:
        raise ConfigError(f"--head {given} cannot be read: {problem}") from None
    heads: dict[str | None, Head] = {}
    for line in lines:
        text, _, name = line.strip().partition(" ")
        try:
            heads[_named(name) if name else study] = Head.of(text)
        except ValueError as problem:
            raise ConfigError(f"--head {given}: {problem}") from None
    if not heads or (study is not None and study not in heads):
        raise ConfigError(f"--head {given} holds no head of {study or 'any study'!r}")
    return heads


def _written(name: str) -> str:
    """A study's name in a line of heads: as it is, or as JSON where that would be ambiguous."""
    is_plain = name.isprintable() and name == name.strip() and name[:1] not in ("", '"')
    return name if is_plain else json.dumps(name)


def _named(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def _url(journal: str) -> str:
    """The URL of a journal that is given as one, as a file, or by a study file."""
    if "://" in journal:
        Address.of(journal)
        return journal
    try:
        is_file = Path(journal).is_file()
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        raise StudyNotFoundError(
            f"there is no file {journal!r:.200}; name a journal's file, or its URL such as "
            "sqlite:///study.db"
        )
    if Path(journal).suffix in (".yaml", ".yml"):
        return StudyConfig.from_file(journal).journal_url(Path(journal).resolve().parent)
    return f"sqlite:///{Path(journal).resolve()}"
