"""The files of a SQLite journal."""


def remove_logs(path):
    """Remove what lies beside the file, as docs/how-to/backup.md says."""
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
