"""A plan -> what the platform serves: flag definitions and JSON tables."""
