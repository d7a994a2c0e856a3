"""Every example of README.md and of the pages under docs/ runs as it is shown, with its result.

A page starts in an empty folder. Its blocks run in their order:

    python       in one namespace per page; its output is compared with a ``text`` block below it
    bash         in a shell; its output is compared likewise, or its result by ``RESULTS``
    sql          on the page's journal
    title="..."  the block is a file of this name
    sh           is not run: every line stands in ``NOT_RUN`` with the reason

The options of all commands are checked, in sentences too. Contract suites that a page defines run.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
import unittest
import warnings
from pathlib import Path

import pytest
import typer
from support.commands import installed

import hyperzero_torch as hz
from hyperzero_torch.cli.app import app
from hyperzero_torch.testing import JournalContract, UpdaterContract

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.S | re.M)
RUNNABLE = {"python", "bash", "sql"}
LANGUAGES = {*RUNNABLE, "text", "sh", "yaml", "json", "nginx"}
ALL = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}

NETWORK = "installs from a package index"
CHECKOUT = "runs in a checkout for minutes; tests/integrations/test_examples.py runs the program"
NOT_RUN = {
    "README.md": {
        "make demo": "builds .venv from a package index; its recipe is checked below",
        "make test": "runs this test again; its recipe is checked below",
        "pip install -e '.[report,duckdb,flags]'": NETWORK,
    },
    "docs/tutorial.md": {"pip install -e '.[report]'": NETWORK},
    "docs/notebooks.md": {
        "pip install -e '.[report,frames,duckdb,flags,botorch]' matplotlib jupyter": NETWORK,
        "apt-get install chromium": NETWORK,
    },
    "docs/how-to/serve.md": {"pip install -e '.[serve]'": NETWORK},
    "docs/how-to/cuda.md": {
        "python -m bench.cuda --minutes 8": "needs a GPU; tests/bench/test_cuda.py runs it without",
        "python -m bench.device.wheels build/wheels --python 3.11": NETWORK,
        "python -m bench.cuda --wheels build/wheels": "needs a GPU and the wheels",
    },
    "docs/how-to/live.md": {
        "pip install -e '.[duckdb,flags,metrics]'": NETWORK,
        "hyperzero run -c tuning.yaml --log json --metrics-port 9108": (
            "runs for hours; tests/live/test_live.py runs a study file with short rounds"
        ),
    },
    "docs/how-to/deploy.md": dict.fromkeys(
        (
            "docker build --file deploy/Dockerfile --tag hyperzero:0.1.0 .",
            "cp deploy/env.example deploy/.env",
            "docker compose --file deploy/compose.yaml up --build --detach",
            "docker compose --file deploy/compose.yaml logs --follow loop",
            "docker compose --file deploy/compose.yaml run --rm page serve token add anna "
            "--role approver --tokens /var/lib/hyperzero/tokens.json",
            "docker compose --file deploy/compose.yaml --profile page up --detach",
            "kubectl create namespace hyperzero",
            "kubectl create secret generic hyperzero-secrets "
            "--from-literal=DATABASE_PASSWORD=... --namespace hyperzero",
            "kubectl apply --kustomize deploy/kubernetes",
            "kubectl exec --namespace hyperzero deploy/hyperzero --container page -- hyperzero "
            "serve token add anna --role approver --tokens /var/lib/hyperzero/tokens.json",
            "install -D -m 644 deploy/systemd/hyperzero.service "
            "/etc/systemd/system/hyperzero.service",
            "systemctl enable --now hyperzero.service",
            "journalctl --unit hyperzero.service --follow",
        ),
        "needs an engine, a cluster or root; tests/test_deploy.py checks the files",
    ),
    "docs/how-to/runbook.md": dict.fromkeys(
        (
            'hyperzero withdraw -c tuning.yaml --reason "incident 4711"',
            'hyperzero resume -c tuning.yaml --reason "mended"',
            "hyperzero status -c tuning.yaml",
            "hyperzero doctor -c tuning.yaml",
            "hyperzero explain -c tuning.yaml",
            "hyperzero verify study.db",
        ),
        "of a study in trouble; tests/cli/test_switches.py and test_doctor.py run them",
    ),
    "docs/how-to/sql.md": dict.fromkeys(
        (
            "hyperzero sql -c tuning.yaml --dialect postgres > hour.sql",
            "psql --csv -v round=18 -f hour.sql | hyperzero step -c tuning.yaml --round 18 "
            "--readings - --plan plan.json",
            "bq query --format=csv --parameter=round:INT64:18 < hour.sql > readings.csv",
            "clickhouse client --param_round=18 --format CSVWithNames < hour.sql > readings.csv",
        ),
        "needs a warehouse; tests/live/test_query.py runs the query on PostgreSQL",
    ),
    "docs/how-to/backup.md": dict.fromkeys(
        (
            "sqlite3 study.db \".backup 'study-backup.db'\"",
            'pg_dump --format=custom --file=study-backup.dump "postgresql://user@host/database"',
            "hyperzero doctor -c restored.yaml",
            "cp study-backup.db study.db",
            'pg_restore --dbname="postgresql://user@host/database" study-backup.dump',
            "hyperzero take-over -c tuning.yaml --reason "
            '"the disk was lost; restored from the backup of Monday"',
        ),
        "needs programs of a database; tests/study/test_backup.py runs each procedure",
    ),
    "docs/how-to/examples.md": {
        "pip install -e '.[ray]'": NETWORK,
        "python examples/neural_objective.py": CHECKOUT,
        "python examples/neural_objective.py --rounds 24": CHECKOUT,
        "python examples/ray_studies.py": CHECKOUT,
        "python examples/ray_studies.py --studies 8 --rounds 24": CHECKOUT,
        "python examples/ray_studies.py --tune --trials 8": CHECKOUT,
    },
}


class Folder(type(Path())):
    """The folder in which a page runs, and what its files hold."""

    def json(self, name):
        return json.loads((self / name).read_text(encoding="utf-8"))

    def rows(self, journal, query):
        with contextlib.closing(sqlite3.connect(self / journal)) as db:
            return db.execute(query).fetchall()

    def num_readings(self, journal):
        return self.rows(journal, "SELECT COUNT(*) FROM readings")[0][0]

    def decisions(self, journal):
        return self.rows(journal, "SELECT kind, reason FROM decisions ORDER BY entry")

    def is_report(self, name, *words):
        page = (self / name).read_text(encoding="utf-8")
        return page.rstrip().endswith("</html>") and all(word in page for word in words)


def is_plan(plan, round_):
    shares = [arm["share"] for arm in plan["arms"]]
    assert plan["round"] == round_
    assert plan["arms"][0]["candidate"] == 0
    assert len(shares) > 30
    assert sum(shares) == pytest.approx(1)


def readme_cron(folder, done):
    is_plan(folder.json("plan_0.json"), 0)
    is_plan(folder.json("plan_1.json"), 1)
    assert folder.num_readings("study.db") == 6
    assert "nan" not in done.stdout  # all metrics have reported, so there is an estimate
    assert "w_click" in done.stdout
    assert folder.is_report("report.html", "feed", "w_click")


def rows_were_collected(rounds, folder, done):
    assert "Traceback" not in done.stderr
    stopped = re.search(rf"stopped after {rounds} rounds; ([\d,]+) new readings", done.stderr)
    collected = int(stopped[1].replace(",", ""))
    assert collected > 100 * rounds
    assert folder.num_readings("living/study.db") == collected
    assert len(list(folder.glob("living/exposures/*.parquet"))) == rounds - 1
    assert folder.json("living/flags.json")["flags"]["value-model"]["state"] == "ENABLED"
    assert "true gain" in done.stdout


def cron_first_plan(folder, done):
    is_plan(folder.json("plan_0.json"), 0)
    assert hz.StudyConfig.from_file(folder / "tuning.yaml").problem()


def cron_second_plan(folder, done):
    is_plan(folder.json("plan_1.json"), 1)
    assert folder.num_readings("study.db") == 65 * 3


def cron_again(folder, done):
    assert folder.num_readings("study.db") == 65 * 3
    status, recommendation = done.stdout.split("study feed: last round 1")[1].split("w_click")
    assert "64" in status
    assert "w_share" in recommendation


def cron_other_forms(folder, done):
    assert done.stderr.count("were recorded before") == 2
    assert (folder / "again.json").read_bytes() == (folder / "plan_1.json").read_bytes()
    assert folder.num_readings("study.db") == 195


def cron_status(folder, done):
    assert folder.json("status.json")["study"] == "feed"


def safety_budget(folder, done):
    plan = json.loads((folder / "plan.json").read_text())
    shares = [arm["share"] for arm in plan["arms"]]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] >= 0.8 - 1e-9  # at most a fifth to untested candidates
    assert plan["experiment_share"] == 0.1
    assert "harm budget: 200 a round and 2,000 a day (points times users)" in done.stdout
    assert "0.1 of all users take part" in done.stdout


def safety_explain(folder, done):
    assert "round 8" in done.stdout
    assert "P(feasible)" in done.stdout


def safety_doctor(folder, done):
    assert "stopped" in done.stdout
    assert "let-back" in done.stdout


def safety_switches(folder, done):
    last_decision(folder, "resumed", "it is out")
    assert "names no platform" in done.stderr


def last_decision(folder, kind, reason):
    assert folder.decisions("study.db")[-1] == (kind, reason)


def goals_changed(folder, done):
    assert "is loosened: 'guard >= -1%' from here on" in done.stdout
    assert "the bounds of 'w_2' are narrower" in done.stdout
    assert "recommended after:" in done.stdout
    assert "dry run: nothing was written" in done.stderr
    changes = [reason for kind, reason in folder.decisions("study.db") if kind == "goals changed"]
    assert changes == ["one percent is acceptable"]


def goals_shown(folder, done):
    assert "rounds 0 to 11: maximise gain" in done.stdout
    assert "changed by ann: one percent is acceptable" in done.stdout


def launch_shown(word, folder, done):
    assert word in done.stdout + done.stderr


def transfer_packages(folder, done):
    for name in ("north", "east"):
        assert folder.json(f"{name}.json")
    assert "north" in done.stdout
    assert "feed/south" in done.stdout


def transfer_compared(folder, done):
    assert folder.is_report("domains.html", "north", "east")
    assert "north" in done.stdout
    assert not (folder / "south.db").exists()


def transfer_reported(folder, done):
    assert "round 4" in done.stdout
    assert folder.is_report("report.html", "Transfer from other domains", "north", "east")


def transfer_signed(folder, done):
    secret = (folder / "north.key").read_text().strip().partition(":")[2]
    assert len(secret) == 64
    assert secret not in (folder / "signed.json").read_text()
    assert f"signed by {(folder / 'north.pub').read_text().strip()}" in done.stderr


def transfer_learned(folder, done):
    assert folder.decisions("west.db")[0][0] == "source"


def transfer_revoked(folder, done):
    assert "source 'north' is withdrawn" in done.stderr
    kinds = [kind for kind, _ in folder.decisions("west.db")]
    assert "source withdrawn" in kinds


def transfer_dry_run(folder, done):
    assert not (folder / "private.json").exists()
    assert not (folder / "north-ledger.json").exists()
    assert "epsilon" in done.stdout + done.stderr


def serve_asked(folder, done):
    is_plan(folder.json("plan.json")["plan"], 0)
    assert "serving 1 studies at http://127.0.0.1:8765/" in (folder / "serve.log").read_text()
    secret = (folder / "anna.token").read_text().strip()
    assert secret not in (folder / "tokens.json").read_text()


def integrity_head(folder, done):
    head = (folder / "heads.txt").read_text().split()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}@\d+", head[0])
    assert head[1] == "feed"
    assert done.stdout.split() == head


def integrity_broken(folder, done):
    assert "exit code 8" in done.stdout
    assert "a decision with its reason" in done.stderr


def integrity_signed(folder, done):
    assert "is signed with the key" in done.stdout
    assert (folder / "heads.txt").read_text().startswith("hmac-")
    assert (folder / "journal.key").stat().st_mode & 0o077 == 0


# What a block of bash without a block of text below it comes to, in the order of the page.
RESULTS = {
    "README.md": [readme_cron, lambda *of: rows_were_collected(3, *of)],
    "docs/how-to/cron.md": [
        cron_first_plan, cron_second_plan, cron_again, cron_other_forms, cron_status,
    ],
    "docs/how-to/goals.md": [goals_changed, goals_shown],
    "docs/how-to/live.md": [
        lambda *of: rows_were_collected(3, *of),
        lambda folder, done: "nothing was written" in done.stderr or pytest.fail(done.stderr),
    ],
    "docs/how-to/launch.md": [
        lambda *of: launch_shown("nothing was written", *of),
        lambda *of: launch_shown("stage 3: 95 % of all users", *of),
        lambda *of: launch_shown("complete, stage 3 of 3", *of),
        lambda *of: launch_shown("study 'feed.2' goes on from round", *of),
    ],
    "docs/how-to/integrity.md": [integrity_head, integrity_broken, integrity_signed],
    "docs/how-to/retention.md": [
        lambda folder, done: "nothing" in done.stdout + done.stderr or pytest.fail(done.stdout),
    ],
    "docs/how-to/safety.md": [
        safety_budget,
        safety_explain,
        lambda folder, done: last_decision(folder, "set aside", "the ranker was down at four too"),
        safety_doctor,
        lambda folder, done: last_decision(
            folder, "rolled back", "the model was wrong two hours earlier already"
        ),
        safety_switches,
    ],
    "docs/how-to/serve.md": [serve_asked],
    "docs/transfer.md": [
        transfer_packages, transfer_compared, transfer_reported, transfer_signed,
        transfer_learned, transfer_revoked, transfer_dry_run,
    ],
}  # fmt: skip


def cron_script(folder, shell):
    """hour.sh with a query and a platform: two hours after the study began."""
    (folder / "began").write_text(str(int(time.time()) - 2 * 3600 - 60))
    shutil.copy(folder / "readings.csv", folder / "exported.csv")
    for name, does in (("export_readings.sh", "cat exported.csv"), ("serve.sh", 'cp "$1" served')):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    shell("./hour.sh")
    is_plan(folder.json("served"), 2)
    assert folder.num_readings("study.db") == 65 * 3


# What is done with a page's files after its last block.
AT_THE_END = {"docs/how-to/cron.md": cron_script}


def blocks(page):
    """Language, title, code and line of every fenced block."""
    text = ALL[page]
    return [(m[1], m[2], m[3], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


PAGES = [page for page in ALL if RUNNABLE & {language for language, *_ in blocks(page)}]


def required(page):
    """A package that a page is about and that no extra installs; its first lines name it."""
    header = re.match(r"---\nrequires: ([\w.]+)\n---\n", ALL[page])
    return header and header[1]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs code in bash; fails where it fails."""
    with installed(tmp_path_factory.mktemp("bin")) as commands:
        path = os.pathsep.join(
            [str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

        def run(code):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                capture_output=True, text=True, env=environment,
            )  # fmt: skip
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            return done

        yield run


def run_page(page, folder, shell, names):
    results, printed = iter(RESULTS.get(page, ())), None
    of_page = blocks(page)
    for number, (language, title, code, line) in enumerate(of_page):
        compared = of_page[number + 1][0] == "text" if number + 1 < len(of_page) else False
        if title is not None:
            (folder / title).write_text(code, encoding="utf-8")
            (folder / title).chmod(0o755)
        elif language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (line - 1) + code, page, "exec"), names)
            printed = out.getvalue()
            assert bool(printed.strip()) == ("print(" in code), f"line {line} prints {printed!r}"
        elif language == "text":
            assert printed == code, f"line {line}"
        elif language == "bash":
            done = shell(code)
            printed = done.stdout
            if not compared:
                next(results)(folder, done)
        elif language == "sql":
            with contextlib.closing(sqlite3.connect("studies.db")) as db:
                db.executescript(code)
    assert next(results, None) is None, "RESULTS has more than the page has blocks"


def run_laws(contract, folder):
    names = [name for name in dir(contract) if name.startswith("test_")]
    assert len(names) > 5
    for name in names:
        place = folder / contract.__name__ / name
        place.mkdir(parents=True)
        with contextlib.suppress(unittest.SkipTest):
            getattr(contract(), name)(place)


# Pages ask for rounds whose readings have not arrived.
@pytest.mark.filterwarnings("ignore:.*no readings? ha(s|ve) arrived")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_and_come_to_what_they_say(page, tmp_path, monkeypatch, shell):
    package = required(page)
    if package is not None and importlib.util.find_spec(package.split(".")[0]) is None:
        compiled = [
            compile(code, page, "exec")
            for language, _, code, _ in blocks(page)
            if language == "python"
        ]
        assert compiled
        pytest.skip(f"{package} is not installed: the examples were compiled, not run")
    folder = Folder(tmp_path / "page")
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {"__name__": "page"}
    # Warnings of another library about itself do not count here.
    theirs = package is not None
    with warnings.catch_warnings(action="ignore") if theirs else contextlib.nullcontext():
        run_page(page, folder, shell, names)
    if page in AT_THE_END:
        AT_THE_END[page](folder, shell)
    laws = (JournalContract, UpdaterContract)
    for value in list(names.values()):
        if isinstance(value, type) and issubclass(value, laws) and value not in laws:
            run_laws(value, tmp_path / "laws")


def test_there_are_examples_and_every_block_says_what_it_is():
    assert len(PAGES) >= 12
    assert {*RESULTS, *AT_THE_END} <= set(PAGES)
    for page in ALL:
        for language, _, _, line in blocks(page):
            assert language in LANGUAGES, f"{page}:{line} is a block of {language!r}"


def test_every_command_that_is_not_run_has_a_reason():
    shown = {}
    for page in ALL:
        for language, title, code, _ in blocks(page):
            if language == "sh" and title is None:
                lines = (line.split("  #")[0].strip() for line in code.splitlines())
                shown.setdefault(page, set()).update(line for line in lines if line)
    assert shown == {page: set(reasons) for page, reasons in NOT_RUN.items()}
    for reasons in NOT_RUN.values():
        for command in reasons:
            program = re.match(r"python (-m )?(\S+)", command)
            if program is not None:
                path = program[2].replace(".", "/") + ".py" if program[1] else program[2]
                assert (ROOT / path).is_file()


def test_the_two_commands_of_the_readme_do_what_it_says():
    for target, command in (("demo", "hyperzero demo"), ("test", "python -m pytest")):
        recipe = subprocess.run(
            ["make", "--no-print-directory", "-n", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert command in recipe.stdout.splitlines()[-1]


def test_study_files_on_the_pages_are_study_files(tmp_path):
    files = 0
    for page in ALL:
        for language, _, code, _ in blocks(page):
            if language == "yaml" and "parameters:" in code:
                (tmp_path / "tuning.yaml").write_text(code)
                hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()
                files += 1
    assert files


def commands_of(page):
    """Every command of ours that a page shows, in blocks and in sentences; its place and words."""
    for language, _, code, line in blocks(page):
        if language in ("sh", "bash"):
            for m in re.finditer(r"(?<![/=])(?<!namespace )\bhyperzero ([a-z-]+)([^\n#|;]*)", code):
                yield f"{page}:{line}", m[1], m[2]
    for m in re.finditer(r"`hyperzero ([a-z-]+)([^`]*)`", FENCE.sub("", ALL[page])):
        yield f"{page}: {m[0]}", m[1], m[2]


def test_commands_have_the_options_that_are_shown():
    commands = typer.main.get_command(app).commands
    checked = 0
    for page in ALL:
        for place, name, options in commands_of(page):
            assert name in commands, f"{place}: no command {name!r}"
            command, words = commands[name], options.split(maxsplit=1)
            while hasattr(command, "commands") and words and not words[0].startswith("-"):
                assert words[0] in command.commands, f"{place}: no {words[0]!r}"  # of a group
                command = command.commands[words[0]]
                words = words[1].split(maxsplit=1) if len(words) > 1 else []
            known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            shown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", options)) - {"--help"}
            assert shown <= known, f"{place}: {shown - known}"
            checked += 1
    assert checked > 25


def test_extras_and_targets_that_are_shown_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    makefile = (ROOT / "Makefile").read_text()
    for page, text in ALL.items():
        for extras in re.findall(r"(?:hyperzero-torch|'\.)\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page
        for target in re.findall(r"`make (\w+)", text):
            assert re.search(f"^{target}:", makefile, re.M), f"{page}: make {target}"
