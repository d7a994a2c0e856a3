"""A hook of MkDocs: what the pages take from the package and the repository.

    <!-- insert: file CHANGELOG.md -->  a whole Markdown file
    <!-- insert: packages -->           the map in the package's docstring
    <!-- insert: raw -->                the files of raw numbers
    <!-- insert: commands -->           the command line's help
    <!-- insert: members hyperzero_torch.transfer -->   the reference of a package's public names

Links to files of the repository that are no page (tests, benchmarks, raw numbers, figures) become
links to copies of them in the site.
"""

from __future__ import annotations

import ast
import posixpath
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
_INSERT = re.compile(r"<!-- insert: (\w+) ?(.*?) -->")
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
# Where the site keeps copies of the repository's files.
_COPIES = "repository"
# Browsers show these; all others get ".txt", or they would be downloaded.
_AS_THEY_ARE = {".svg", ".json", ".txt", ".ipynb"}


class MissingPieceError(Exception):
    """A page asks for something that is not there."""


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert what the page asks for, then point links at copies of the repository's files."""
    folder = posixpath.dirname(page.file.src_uri)
    text = inserted(markdown, posixpath.join("docs", folder))
    return _outside_code(text, lambda part: _relink(part, folder, config, files))


def inserted(markdown: str, folder: str) -> str:
    """The page with every insertion made; ``folder`` is the page's, from the repository's root."""

    def insert(match: re.Match[str]) -> str:
        kind, what = match.groups()
        if kind not in PIECES:
            raise MissingPieceError(f"nothing to insert is called {kind!r}; see docs/hooks.py")
        text, origin = PIECES[kind](what)
        return _outside_code(text, lambda part: _moved(part, origin, folder))

    return _INSERT.sub(insert, markdown)


def _moved(text: str, origin: str, folder: str) -> str:
    """Relative links that were written in one folder, as they read in another."""

    def move(match: re.Match[str]) -> str:
        path = posixpath.relpath(posixpath.join(origin, match[2]), folder or ".")
        return f"{match[1]}{path}{match[3] or ''})"

    return _LINK.sub(move, text)


def _relink(text: str, folder: str, config: MkDocsConfig, files: Files) -> str:
    from mkdocs.structure.files import File

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[2]))
        if path.startswith("docs/"):
            inside = path.removeprefix("docs/")
            target = posixpath.relpath(inside, folder or ".")
            return f"{match[1]}{target}{match[3] or ''})"
        if not (ROOT / path).is_file():
            raise MissingPieceError(f"a link leads to {path!r}, where the repository has no file")
        suffix = "" if Path(path).suffix in _AS_THEY_ARE else ".txt"
        copy = f"{_COPIES}/{path}{suffix}"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, content=(ROOT / path).read_bytes()))
        return f"{match[1]}{posixpath.relpath(copy, folder or '.')})"

    return _LINK.sub(link, text)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = _FENCE.split(text)  # code at odd places
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def file(path: str) -> tuple[str, str]:
    """A whole Markdown file, without its title where it has one."""
    if not (ROOT / path).is_file():
        raise MissingPieceError(f"the repository has no file {path!r}")
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.sub(r"\A# .*\n", "", text).strip(), posixpath.dirname(path)


def packages(_: str = "") -> tuple[str, str]:
    """The packages and what is in them, as the docstring of hyperzero_torch says."""
    docstring = ast.get_docstring(
        ast.parse((ROOT / "hyperzero_torch" / "__init__.py").read_text(encoding="utf-8"))
    )
    layout = (docstring or "").partition("\nLayout\n")[2].partition("\nWhere to look\n")[0]
    rows = re.findall(r"^    (\w+) {2,}(\S.*)$", layout, re.M)
    if not rows:
        raise MissingPieceError("the docstring of hyperzero_torch has no map of packages")
    lines = ["| package | what is in it |", "| --- | --- |"]
    for name, content in rows:
        path = Path("hyperzero_torch") / f"{name}.py"
        path = path if (ROOT / path).is_file() else Path("hyperzero_torch") / name / "__init__.py"
        lines.append(f"| [`{name}`]({path.as_posix()}) | {content} |")
    return "\n".join(lines), ""


def raw(_: str = "") -> tuple[str, str]:
    """Every file of raw numbers, and the module that writes it, as that module says."""
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "bench").rglob("*.py"))
    }
    paths = sorted((ROOT / "bench" / "results").iterdir())
    rows = (f"| [{p.name}](bench/results/{p.name}) | {_writer(p, sources)} |" for p in paths)
    return "\n".join(["| raw numbers | written by |", "| --- | --- |", *rows]), ""


def _writer(path: Path, sources: dict[str, str]) -> str:
    stem = path.stem
    wanted = (f'"{path.name}"', f'/{path.name}"')
    if stem.startswith("speed_") and f"bench/speed/bench_{stem[6:]}.py" in sources:
        return f"[bench_{stem[6:]}](bench/speed/bench_{stem[6:]}.py)"
    if stem.startswith("race_"):
        return "[bench.quality.race.run](bench/quality/race/run.py)"
    if stem.startswith("transfer_") and path.suffix == ".jsonl":
        return "[bench.transfer.run](bench/transfer/run.py)"
    writers = [
        name
        for name, text in sources.items()
        if any(w in text for w in wanted) and name != "bench/tables.py"
    ]
    # Else where the name is put together: whoever has its first part as a text of its own.
    writers = writers or [name for name, text in sources.items() if f'"{path.stem}' in text]
    if not writers:
        raise MissingPieceError(f"no module under bench/ says that it writes {path.name}")
    name = writers[0]
    return f"[{name.removesuffix('.py').replace('/', '.')}]({name})"


def members(package: str) -> tuple[str, str]:
    """Directives for all that a package's ``__all__`` names, where each is defined."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    if not path.is_file():
        raise MissingPieceError(f"there is no package {package!r}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    origin: dict[str, str] = {}
    public: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.module else package
            origin |= {a.asname or a.name: f"{module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = ast.literal_eval(node.value)
    if not public:
        raise MissingPieceError(f"{package} names nothing in __all__")
    return "\n\n".join(f"::: {origin.get(name, f'{package}.{name}')}" for name in public), ""


def commands(_: str = "") -> tuple[str, str]:
    """What ``--help`` says, command by command."""
    import typer

    from hyperzero_torch.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = [_described(group.help or "")]
    for name, command in _each(group):
        rows = ["| option | |", "| --- | --- |"]
        for option in command.params:
            names = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
            says = " ".join((getattr(option, "help", "") or "").split())
            rows.append(f"| {names} | {says.replace('|', ' or ')}{_unless_given(option)} |")
        table = "\n".join(rows) if command.params else ""
        parts.append(f"## hyperzero {name}\n\n{_described(command.help or '')}\n\n{table}")
    return "\n\n".join(parts), ""


def _unless_given(option: Any) -> str:
    """What holds where an option is left out."""
    if option.required:
        return " Required."
    value = option.default
    if value is None or value is False or value == () or callable(value):
        return ""
    value = getattr(value, "value", value)  # of an enumeration
    return "" if "default" in (getattr(option, "help", "") or "") else f" Default: `{value}`."


def _each(group: Any, before: str = "") -> list[tuple[str, Any]]:
    """Commands by their whole names; those of a group follow it."""
    entries = []
    for name, command in group.commands.items():
        entries.append((before + name, command))
        if hasattr(command, "commands"):
            entries += _each(command, f"{before}{name} ")
    return entries


def _described(text: str) -> str:
    """Help text with its indented commands as code."""
    text = textwrap.dedent(text).replace("\b", "").strip()
    lines = [
        f"`{line.strip()}`" if line.startswith("  ") and line.strip() else line
        for line in text.splitlines()
    ]
    return "\n".join(lines)


PIECES: dict[str, Callable[[str], tuple[str, str]]] = {
    "file": file,
    "packages": packages,
    "raw": raw,
    "commands": commands,
    "members": members,
}
