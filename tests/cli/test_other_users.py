"""Data and files of others: they steer no terminal, run no code here, and take no memory."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import hyperzero_torch as hz
from hyperzero_torch.cli import output
from hyperzero_torch.live.telemetry import TextFormatter
from hyperzero_torch.runtime.native import build
from hyperzero_torch.runtime.plain import plain

HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\u202eb\u2028"


def test_what_commands_print_steers_no_terminal(capsys):
    table = Table("name")
    table.add_row(HOSTILE)
    output.show(HOSTILE)
    output.console.print(table)
    for write in (output.note, output.warn, output.error):
        write(HOSTILE)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "\\x1b[2J" in text
        assert not set("\x1b\x07\x9b\r\u202e\u2028") & set(text)


def test_a_log_line_stays_one_line():
    record = logging.makeLogRecord(
        {"msg": "study %s", "args": (HOSTILE + "\n2026-01-01 INFO forged",), "levelname": "INFO"}
    )
    line = TextFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = TextFormatter().format(record).splitlines()
    assert lines[0] == line
    assert lines[1].startswith("Traceback")
    assert not any("\x1b" in line for line in lines)


@given(st.text())
def test_a_plain_text_has_no_control_character_and_says_all(text):
    shown = plain(text, keep="")
    kinds = {unicodedata.category(sign) for sign in shown if sign not in "\u00ad\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Zl", "Zp", "Cs"}
    assert plain(shown) == shown
    if text.isprintable():
        assert shown == text


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghijklmnop", "bcdefghijklmnopq")
)


def test_a_file_of_aliases_costs_no_memory(tmp_path):
    path = tmp_path / "tuning.yaml"
    tracemalloc.start()
    try:
        for text in (BOMB, BOMB + "parameters: *q\nbase: *q\n", "a: &a [*a]\n", "a: &a {b: *a}\n"):
            path.write_text(text)
            for kind in (hz.StudyConfig, hz.TunerConfig):
                with pytest.raises(hz.ConfigError, match="alias") as caught:
                    kind.from_file(path)
                assert len(str(caught.value)) < 1000
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_a_few_aliases_are_as_good_as_ever(tmp_path):
    path = tmp_path / "traffic.yaml"
    path.write_text("num_draws: &n 100\nnum_samples: *n\n")
    config = hz.TunerConfig.from_file(path)
    assert (config.num_draws, config.num_samples) == (100, 100)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The kernels, compiled once for all tests here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("compiled")))
        build.load()
        (kept,) = build._cache().glob("*.so")
    return kept


needs_compiler = pytest.mark.skipif(build.library() is None, reason="no compiler")


@needs_compiler
@pytest.mark.parametrize("where", ["folder", "file"])
@pytest.mark.parametrize("how", ["group", "others", "owner", "link"])
def test_compiled_kernels_of_others_are_not_run(tmp_path, monkeypatch, compiled, where, how):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def copied(compiler, here, scratch):
        return Path(shutil.copy(compiled, scratch / "kernels.so"))

    monkeypatch.setattr(build, "_build", copied)
    build.load()
    (kept,) = (tmp_path / "cache").rglob("*.so")
    target = kept.parent if where == "folder" else kept
    if how in ("group", "others"):
        target.chmod(0o770 if how == "group" else 0o702)
    elif how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(target, 12345, -1)
    else:
        real = target.with_name("real")
        target.rename(real)
        target.symlink_to(real)
    kept.write_bytes(b"not code of ours")  # loading it would fail
    assert build.load() is not None
    assert kept.read_bytes() == b"not code of ours"


@needs_compiler
def test_what_is_built_here_is_for_this_user_alone(tmp_path):
    code = "import os; os.umask(0); from hyperzero_torch.runtime.native import build; build.load()"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    (kept,) = (tmp_path / "cache").rglob("*.so")
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o700, 0o700)
