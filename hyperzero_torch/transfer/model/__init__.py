"""The hierarchical model of the sources' and the target's evidence."""
