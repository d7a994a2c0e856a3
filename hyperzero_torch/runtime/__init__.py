"""Memory limits, files, random generators and compiled kernels; the package's version."""

__version__ = "0.1.0"
