"""From a plan to what the platform serves: flag definitions and JSON tables."""
