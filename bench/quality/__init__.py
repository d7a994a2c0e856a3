"""Questions about decisions: gain and violation per hour of traffic."""
