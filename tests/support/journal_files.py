"""Journal files: their logs, earlier formats, and what a migration that is killed leaves of one."""

import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

FIXTURES = Path(__file__).parents[1] / "fixtures"


def remove_logs(path):
    """Remove what lies beside a SQLite file, as docs/how-to/backup.md says."""
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def shape(where):
    """Tables, columns, keys and indexes, as the database describes them."""
    engine = sa.create_engine(where)
    try:
        inspector = sa.inspect(engine)
        return {
            table: (
                [
                    (c["name"], str(c["type"]), c["nullable"], c["default"])
                    for c in inspector.get_columns(table)
                ],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table)),
            )
            for table in sorted(inspector.get_table_names())
        }
    finally:
        engine.dispose()


#: Kills itself before the first, second, ... statement or commit of an opening, until one succeeds.
KILLER = """
import os, signal, sys, warnings
import sqlalchemy as sa
from hyperzero_torch.study.journal.sql import SqlJournal
sys.path.insert(0, sys.argv[2])
from support.journal_files import fingerprint
warnings.simplefilter("ignore")
url = sys.argv[1]
before, states = fingerprint(url), []

def open_and_die(at):
    seen = 0
    def count(*_):
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    sa.event.listen(sa.Engine, "commit", count)
    SqlJournal(url).close()
    os._exit(0)

for at in range(1, 200):
    child = os.fork()
    if child == 0:
        try:
            open_and_die(at)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
    states.append(fingerprint(url))
whole = fingerprint(url)
assert whole != before
print(*("old" if s == before else "new" if s == whole else "torn" for s in states))
"""


def fingerprint(where):
    """Tables, format and all rows, read without our code."""
    engine = sa.create_engine(where)
    try:
        with engine.connect() as connection:
            tables = sorted(sa.inspect(connection).get_table_names())
            return shape(where), {
                table: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table}")))
                for table in tables
                if table != "hyperzero_journal"
            }
    finally:
        engine.dispose()


def killed_openings(where):
    """What a journal was after each kill: "old", "new" or "torn"; at last it is opened."""
    command = [sys.executable, "-c", KILLER, where, str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
