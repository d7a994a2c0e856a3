"""One study: its configuration, readings, journal, history, evidence and decisions."""
