"""From readings to deltas, and to the evidence on every candidate."""
