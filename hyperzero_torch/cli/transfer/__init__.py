"""`hyperzero transfer`: packages of evidence, comparisons of domains, and an expert's overrides."""
