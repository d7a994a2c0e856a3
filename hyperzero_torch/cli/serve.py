"""``hyperzero serve``: a JSON API and a live page over studies, and the tokens for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .output import note, show, signals_to

_TOKENS = Path("tokens.json")
Tokens = Annotated[
    Path, typer.Option("--tokens", help="File of the tokens; it holds only their hashes.")
]

serve_app = typer.Typer(
    name="serve",
    invoke_without_command=True,
    subcommand_metavar="[token ...]",
    help="""Serve a JSON API and a live page over one or many studies.

The page shows all studies with PASS, WATCH or ACT, and for each the verdict, why, and the next
action as a button. The API is described at /openapi.json and /docs. Everything but /healthz and
/openapi.json needs a token. The server listens on this machine only, unless --host says otherwise;
give it to others through a proxy that has TLS.

Examples:

  hyperzero serve token add anna --role approver

  hyperzero serve -c tuning.yaml --port 8080

  hyperzero serve -c north.yaml -c south.yaml --journal sqlite:///others.db""",
)
token_app = typer.Typer(
    name="token", no_args_is_help=True, help="Tokens of people and programs, each with a role."
)
serve_app.add_typer(token_app)


@serve_app.callback()
def serve(
    context: typer.Context,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", help="Study file; may be given several times."),
    ] = None,
    journal: Annotated[
        list[str] | None,
        typer.Option("--journal", help="Journal URL, all of whose studies are served."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port; 0 for a free one.")
    ] = 8080,
    tokens: Tokens = _TOKENS,
    rate: Annotated[
        float, typer.Option("--rate", min=1, max=1e6, help="Requests a second of one client.")
    ] = 500.0,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            help="Address or network of a proxy, which is believed about whom it speaks for and "
            "whether by TLS; those of this machine always are. May be given several times.",
        ),
    ] = None,
) -> None:
    """Serve until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    from ..integrations.http import create_app, run
    from ..integrations.http.files import places
    from ..integrations.http.run import is_loopback, listener, proxies_of
    from ..integrations.http.tokens import TokenFile

    proxies = proxies_of(proxy or ())
    file = TokenFile(tokens)
    if not file.tokens():
        how = f"hyperzero serve token add NAME --role ROLE --tokens {tokens}"
        if not is_loopback(host):
            raise ConfigError(
                f"--host {host} can be reached by others, and {tokens} holds no token; make one "
                f"first: {how}"
            )
        note(f"there is no token yet, so everybody is refused; make one: {how}", "yellow")
    served = places(config or [], journal or [])
    made = listener(host, port)
    shown = f"[{host}]" if ":" in host else host
    number = made.getsockname()[1]
    note(f"serving {len(served)} studies at http://{shown}:{number}/ until Ctrl-C")
    # The server answers what it is answering, then lets these have the signal.
    with signals_to(lambda *_: sys.exit(0)):
        run(create_app(served, file, rate=rate), made, proxies)


@token_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is; the journal names it.")],
    role: Annotated[
        str,
        typer.Option(
            help="viewer reads; platform asks and tells; operator throws switches; approver also "
            "approves, launches and changes goals."
        ),
    ],
    tokens: Tokens = _TOKENS,
) -> None:
    """Make a token and print it, once: only its hash is kept.

    A running server takes it at once.

    Example:

      hyperzero serve token add anna --role approver
    """
    from ..integrations.http.tokens import TokenFile

    show(TokenFile(tokens).add(name, role))
    note(f"token of {name}, {role}: keep it now, it is not shown again")


@token_app.command("remove")
def remove(name: Annotated[str, typer.Argument()], tokens: Tokens = _TOKENS) -> None:
    """Remove a token: whoever has it is refused from now on.

    Example:

      hyperzero serve token remove anna
    """
    from ..integrations.http.tokens import TokenFile

    TokenFile(tokens).remove(name)
    note(f"token of {name} removed")


@token_app.command("list")
def show_all(tokens: Tokens = _TOKENS) -> None:
    """Show whose tokens there are.

    Example:

      hyperzero serve token list
    """
    from ..integrations.http.tokens import TokenFile

    every = TokenFile(tokens).tokens()
    for token in every:
        show(f"{token.name}: {token.role}, since {token.created}")
    if not every:
        note(f"{tokens} holds no token")
