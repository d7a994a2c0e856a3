"""A server in a process of its own, for bench.speed.serve."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperzero_torch.integrations.http.tokens import TokenFile


class Server:
    """A server over a journal, and the token of a platform that is also a viewer."""

    def __init__(self, folder: Path, url: str) -> None:
        tokens = folder / "tokens.json"
        self.secret = TokenFile(tokens).add("bench", "platform")
        code = "from hyperzero_torch.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", "--journal", url, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--tokens", str(tokens), "--rate", "1000000"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        place = re.search(r"http://([\d.]+):(\d+)/", line)
        assert place, line
        self.host, self.port = place[1], int(place[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=300)

    def call(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/studies/default/{path}", content, headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status == 200, document
        return document

    def once(self, method: str, path: str, body: Any = None) -> Any:
        """A call in a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            return self.call(connection, method, path, body)

    def login(self) -> str:
        """The cookie of a browser."""
        form = urllib.parse.urlencode({"token": self.secret})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", "/login", form, kind)
            answer = connection.getresponse()
            answer.read()
        return str(answer.headers["Set-Cookie"]).partition(";")[0]

    def fetch(self, path: str, cookie: str) -> bytes:
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, content[:200]
        return content

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def served(folder: Path, url: str) -> Iterator[Server]:
    server = Server(folder, url)
    try:
        yield server
    finally:
        server.kill()
