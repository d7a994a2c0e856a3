"""``hyperzero transfer keygen``, ``verify`` and ``revoke``: keys and signatures of packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import ConfigError
from ...transfer.sharing import package as packages
from ...transfer.sharing import revocation
from ...transfer.sharing.signing import SigningKey
from ..output import note, show, show_json
from ..study import AsJson

Signers = Annotated[
    list[str] | None,
    typer.Option(
        "--signer",
        help="Public key (ed25519:...) of which one must have signed a package; may be repeated.",
    ),
]


def keygen(
    out: Annotated[Path, typer.Option("--out", "-o", help="New file for the private key.")],
) -> None:
    """Make a key that signs packages: the private key into a file, the public one is printed.

    The file can be read by its owner alone. Give the public key to those who learn from the
    packages, by another way than the packages; they name it under 'signers' of the source in their
    study file. An existing file is never replaced.

    Example:

      hyperzero transfer keygen --out north.key > north.pub
    """
    key = SigningKey.generate()
    key.to_file(out)
    show(key.public)
    note(f"wrote {out}: keep it secret; sign with 'hyperzero transfer export --sign-key {out}'")


def verify(
    file: Annotated[Path, typer.Argument(help="A transfer package.")],
    signer: Signers = None,
    scope: Annotated[
        str | None, typer.Option(help="Check that it may be used for this today.")
    ] = None,
    revocations: Annotated[
        Path | None, typer.Option(help="File of keys and packages not to be used.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a package was signed by a key that you trust, and is not revoked. Exit code 3: no.

    Examples:

      hyperzero transfer verify north.json --signer $(cat north.pub)

      hyperzero transfer verify north.json --signer $(cat north.pub) --scope feed/eu
      --revocations revoked.json
    """
    if not signer:
        raise ConfigError(
            "--signer is missing: the public key of the package's maker, as 'hyperzero transfer "
            "keygen' printed it there; 'hyperzero transfer inspect' shows which key a package names"
        )
    revoked = None if revocations is None else revocation.Revocations.from_file(revocations)
    package = packages.look(file, signers=signer, revoked=revoked)
    if scope is not None:
        packages.in_force(package, scope, what=f"package {str(file)!r}")
    if as_json:
        facts = {"name": package.source.name, "version": package.version}
        show_json(facts | {"signer": package.signer, "sha256": package.sha256})
    note(
        f"{file}: version {package.version} of {package.source.name!r}, signed by {package.signer}"
    )


def revoke(
    file: Annotated[
        Path, typer.Option("--list", help="File of revocations; it is made where it is missing.")
    ],
    reason: Annotated[str, typer.Option(help="Why; the file and the journal keep it.")],
    key: Annotated[
        str | None, typer.Option(help="Public key none of whose packages is to be used.")
    ] = None,
    package: Annotated[
        str | None,
        typer.Option(help="A package's file, or its SHA-256: only this one is not to be used."),
    ] = None,
) -> None:
    """Write that a key or a package is not to be used any more.

    Name the file under 'revocations' in the study file. From then on such packages are refused, and
    the evidence of those that the study has learned from is withdrawn at the next refresh, which
    every 'hyperzero step' and every round of 'hyperzero run' make; the journal says so. A file of
    revocations that is named and missing is an error.

    Examples:

      hyperzero transfer revoke --list revoked.json --key $(cat north.pub) --reason "key was stolen"

      hyperzero transfer revoke --list revoked.json --package north.json --reason "wrong hour"
    """
    if (key is None) == (package is None):
        raise ConfigError("give --key or --package, one of the two")
    subject = key or _checksum(package or "")
    if revocation.revoke(file, subject, reason):
        note(f"{file}: {subject} is revoked; name the file under 'revocations' in the study file")
    else:
        note(f"{file}: {subject} was revoked before; nothing was changed")


def _checksum(package: str) -> str:
    """The SHA-256 of a package: itself, or that of a file."""
    if len(package) == 64 and "." not in package:
        return package
    return packages.look(package).sha256
