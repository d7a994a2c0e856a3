"""Memory limits, files, random generators and compiled kernels."""
