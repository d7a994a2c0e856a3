"""The API, call by call, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import escape


def body(document: Mapping[str, Any]) -> str:
    """Every call with its parameters and a line for curl."""
    calls = "".join(
        _call(path, method, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    )
    return (
        '<p>A program can read <a href="/openapi.json">the OpenAPI document</a>. Every call but '
        "/healthz and that document needs a token.</p>" + calls
    )


def _call(path: str, method: str, call: Mapping[str, Any]) -> str:
    name = f"{method.upper()} {path}"
    options = "".join(
        f"<li><code>{escape(option['name'])}</code> ({escape(option['in'])}) "
        f"{escape(option.get('description', ''))}</li>"
        for option in call.get("parameters", ())
    )
    content = call.get("requestBody", {}).get("content", {})
    kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in content)
    sent = f"<p>Body: {kinds}</p>" if kinds else ""
    kind = next(iter(content), None)
    data = f" -H 'Content-Type: {kind}' --data @body" if kind else ""
    line = f'curl -X {method.upper()} -H "Authorization: Bearer $TOKEN"{data} HOST{path}'
    return (
        f"<section><h2><code>{escape(name)}</code></h2>"
        f"<p>{escape(call.get('description') or call.get('summary', ''))}</p>"
        f"<ul>{options}</ul>{sent}<p><code>{escape(line)}</code></p></section>"
    )
