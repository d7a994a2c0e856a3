"""Events and exposures -> readings per arm, round and metric."""
