"""``hyperzero init`` and the commented study file that it writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..runtime.files import write_atomically
from ..runtime.places import Kind, check_place
from .output import note
from .study import DryRun

# Also one that is damaged: to begin it anew is what --force is for.
_STUDY_FILE = Kind(
    "a study file",
    lambda content: (
        b"\0" not in content
        and re.search(rb'^\s*["\']?(study|parameters|metrics)["\']?\s*:', content, re.M) is not None
    ),
)
TEMPLATE = """\
# A study: what is tuned, on which metrics, for what, and within which guardrails.
# Check it and get the first plan:
#   hyperzero step --config {name} --plan plan_0.json

study: feed                      # a name; one journal can hold several studies
journal: sqlite:///study.db      # relative to this file; addresses take ${{VARIABLES}}
seed: 0

# The weights of the value model. kind: float | int | choice.
parameters:
  - {{kind: float, name: w_click, low: 0.0, high: 1.0}}
  - {{kind: float, name: w_share, low: 0.1, high: 10.0, log: true}}   # uniform in its logarithm
  # - {{kind: int, name: depth, low: 1, high: 8}}
  # - {{kind: choice, name: mode, options: [a, b]}}                   # options of one type

# Linear constraints on float and int parameters, in their own units. Settings outside are never
# served, and the base must satisfy them too. Write an equality as two inequalities.
# theta_constraints:
#   - w_click + 2 * w_share <= 3
#   - w_share >= w_click

# The parameters of the control group (candidate 0): today's production setting.
base:
  w_click: 0.2
  w_share: 1.0

# Metrics of your readings. Each hour and arm reports users, mean and variance per user.
metrics: [views, watch_time, unfollowed]

# Maximised. A bare metric is its relative change against the control of the same hour;
# level(metric) is its absolute level. Functions: abs exp log sqrt min max.
objective: views

# Guardrails. Mind the sign and the %: without a % a number is a fraction (0.001 is 0.1 %).
# "watch_time may lose at most 0.1 %", "unfollowed stays at or below 10 %".
constraints:
  - watch_time >= -0.1%
  - level(unfollowed) <= 10%

# The control's levels before the study, if you know them. By default they are the averages of the
# control's readings over the hours of the day:
# base_levels: {{views: 31.0, watch_time: 12.5, unfollowed: 0.08}}

# How traffic is divided. All of these are optional.
traffic:
  num_draws: 1000          # Thompson draws an hour; each winner is one slot of traffic
  max_arms: 64             # largest number of candidates served at once, without the control
  control_share: auto      # or a fraction such as 0.2
  # approval_above: 0.1    # a plan that raises a candidate over it waits for 'hyperzero approve'
  # experiment_share: 0.1  # part of all users that takes part: start small where a bad setting is
  #                        # dear, and raise it once the guardrails hold; others get the base
  # start: near            # first candidates around the base, further as guardrails hold; choose it
  #                        # where a bad setting is dear. The default, everywhere, finds the best
  #                        # region sooner
  # plausible_lift: {{views: 5%, watch_time: 5%, unfollowed: 10%}}  # largest change you expect
  # harm_budget: {{per_round: 500, per_day: 5000, users_per_round: 20000}}  # points x users; needs
  #                        # a plausible lift for every guardrail's metric
  initial_candidates: 64   # candidates of the first round, spread over the space
  num_proposals: 4         # new candidates an hour
  min_prob_feasible: 0.9   # what a recommendation must reach
  rounds_per_day: 24       # 24 for hourly rounds
  horizon: 72              # rounds until a decision is due, or a date such as 2027-03-31: take the
  #                        # day on which you have to launch or to stop

# The model: matern (the default), rbf, additive, linear+matern, ensemble, or module:function for a
# factory of your own. A study keeps the model that it was started with.
# surrogate: additive

# Other domains that have tuned the same weights: studies in journals, or transfer packages (see
# hyperzero transfer --help). Each counts as far as it agrees with this study's own evidence.
# sources:
#   - sqlite:///north.db#feed
#   - source: east.json
#     scope: feed/south            # the use of the package, which its maker must have allowed
#     signers: ["ed25519:..."]     # its maker's public key; without it unsigned ones are taken too
#     map:                         # names in this study: names in the source, and unit factors
#       w_click: {{name: click_weight, factor: 0.01}}

# revocations: revoked.json        # keys and packages not to be used (hyperzero transfer revoke)
# export_without_noise: true       # 'hyperzero transfer export' may write without --ledger

# Warehouse and platform, for 'hyperzero run' (which needs the extras flags and duckdb):
# live:
#   exposures: log/exposures/*.parquet     # user, round, candidate
#   events: log/events/*.parquet           # user, round, metric, value[, arrived]
#   flags: flags.json                      # flagd definition file; or table: table.json
#   lateness: 6                            # hours during which events may still arrive
#   lease_rounds: 2                        # rounds after which a plan is served no more
#   monitoring: {{address: 127.0.0.1, port: 9108}}   # /metrics, /healthz, /readyz
#   alerts: {{webhook_env: HYPERZERO_WEBHOOK}}       # a variable with the URL to post events to
#   metrics:                               # metrics that are not plain sums of a user's events
#     ctr: {{numerator: clicks, denominator: impressions}}
#     watch_time: {{winsorise: 0.999}}
"""


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("tuning.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a commented study file to edit: parameters, metrics, objective, constraints, traffic.

    Example:

      hyperzero init tuning.yaml
    """
    text = TEMPLATE.format(name=path.name)
    if dry_run:
        typer.echo(text)
        return
    if force:
        check_place(path, str(path), _STUDY_FILE)
    elif path.exists():
        raise ConfigError(
            f"{path} exists and was not changed; name another file, or overwrite it with --force"
        )
    write_atomically(path, text)
    note(f"wrote {path}; edit it, then run: hyperzero step -c {path} --plan plan_0.json")
