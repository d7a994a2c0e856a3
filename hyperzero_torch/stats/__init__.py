"""Pure, batched kernels: raw values to moments, moments to deltas, deltas to evidence."""
