"""The commented study file that ``hyperzero init`` writes."""

TEMPLATE = """\
# A study: what is tuned, on which metrics, for what, and within which guardrails.
# Check it and get the first plan:
#   hyperzero step --config {name} --plan plan_0.json

study: feed                      # a name; one journal can hold several studies
journal: sqlite:///study.db      # relative to this file
seed: 0

# The weights of the value model. kind: float | int | choice.
parameters:
  - {{kind: float, name: w_click, low: 0.0, high: 1.0}}
  - {{kind: float, name: w_share, low: 0.1, high: 10.0, log: true}}   # uniform in its logarithm
  # - {{kind: int, name: depth, low: 1, high: 8}}
  # - {{kind: choice, name: mode, options: [a, b]}}

# Linear constraints on the parameters, in their own units; nothing outside is ever served. They
# name floats and ints, and the base must satisfy them too. An equality is two of them.
# theta_constraints:
#   - w_click + 2 * w_share <= 3
#   - w_share >= w_click

# What the control group (candidate 0) is served: today's production setting.
base:
  w_click: 0.2
  w_share: 1.0

# Columns of your readings. Every hour and arm report: users, mean and variance per user.
metrics: [views, watch_time, unfollowed]

# Maximised. A bare metric is its relative change against the control of the same hour;
# level(metric) is its absolute level. Functions: abs exp log sqrt min max.
objective: views

# Guardrails. Mind the sign and the %: without a % a number is a fraction (0.001 is 0.1 %).
# "watch_time may lose at most 0.1 %", "unfollowed stays at or below 10 %".
constraints:
  - watch_time >= -0.1%
  - level(unfollowed) <= 10%

# The control's levels, if you know them from before the study (otherwise the control's readings
# of the study are averaged over the hours of the day):
# base_levels: {{views: 31.0, watch_time: 12.5, unfollowed: 0.08}}

# How traffic is shared out. All of these are optional.
traffic:
  num_draws: 1000          # Thompson draws an hour; each winner is one slot of traffic
  max_arms: 64             # most candidates served at once, beside the control
  control_share: auto      # or a fraction such as 0.2
  initial_candidates: 64   # first bucket, spread over the space
  num_proposals: 4         # new candidates an hour
  min_prob_feasible: 0.9   # what a recommendation must reach
  rounds_per_day: 24       # 24 for hourly rounds

# Other domains that have tuned the same weights, as studies in journals or as transfer packages
# (hyperzero transfer --help). They count as far as this study's own evidence bears them out.
# sources:
#   - sqlite:///north.db#feed
#   - source: east.json
#     scope: feed/south            # what the package is used for; its maker has to allow that
#     map:                         # from names here to names there, with a factor between units
#       w_click: {{name: click_weight, factor: 0.01}}

# Warehouse and platform, for 'hyperzero run' (which needs the extras flags and duckdb):
# live:
#   exposures: log/exposures/*.parquet     # user, round, candidate
#   events: log/events/*.parquet           # user, round, metric, value[, arrived]
#   flags: flags.json                      # flagd definition file; or table: table.json
#   lateness: 6                            # hours during which events may come late
#   metrics:                               # where a metric is no plain sum over a user's events
#     ctr: {{numerator: clicks, denominator: impressions}}
#     watch_time: {{winsorise: 0.999}}
"""
