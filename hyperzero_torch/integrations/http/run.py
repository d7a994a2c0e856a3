"""The server: uvicorn, on loopback by default."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI

from ...errors import ConfigError

_THIS_MACHINE = ("127.0.0.1", "::1")
_GRACE_SECONDS = 5  # for calls that are being answered
_MOST_CONNECTIONS = 1024
_SWITCH_SECONDS = 0.0005


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is an error before anything is opened.

    Raises:
        ConfigError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_MOST_CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        made.close()
        raise ConfigError(
            f"nothing can listen at {host}, port {port}: {error}; name another --host or --port"
        ) from None
    return made


class _Server(uvicorn.Server):
    """Ends the live views first, which would otherwise be waited for."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.viewers.end()
        await super().shutdown(sockets)


def proxies_of(given: Sequence[str]) -> list[str]:
    """The proxies that are believed about whom they speak for: this machine's and the given ones.

    Args:
        given: addresses and networks.
    Raises:
        ConfigError: one is no address.
    """
    for proxy in given:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise ConfigError(
                f"--proxy {proxy!r:.100} is no address or network of a proxy ({error}); write it "
                "as in 10.0.0.7 or 10.0.0.0/24"
            ) from None
    return [*_THIS_MACHINE, *given]


def server_of(app: FastAPI, proxies: Sequence[str] = _THIS_MACHINE) -> uvicorn.Server:
    """The server, which runs until SIGTERM, Ctrl-C, or its ``should_exit``.

    Args:
        app: the application.
        proxies: that are believed about whom they speak for, see ``proxies_of``.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=30,
        forwarded_allow_ips=list(proxies),
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return _Server(config)


def run(app: FastAPI, made: socket.socket, proxies: Sequence[str] = _THIS_MACHINE) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    # The thread that writes lets others run at every statement of the database, and would wait for
    # its turn for as long as one of them computes.
    sys.setswitchinterval(_SWITCH_SECONDS)
    server_of(app, proxies).run(sockets=[made])
