"""From events and exposures to readings per arm, round and metric."""
