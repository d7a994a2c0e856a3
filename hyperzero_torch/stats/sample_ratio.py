"""Sample ratio mismatch: do counted users fit the planned shares, in one hour and over all hours?

One hour. Pearson's chi-square, arms of few expected users tested together.

All hours. A leak of 1 % passes every hourly test, and a test that is repeated every hour is sooner
or later wrong. An *e-value* is a bet against the planned shares: its expectation is at most 1 while
they hold, whatever was seen before, and so is that of the product over hours. The product exceeds
1 / alpha at any hour at all with probability alpha at most (Ville).

    all arms      BF_t = Dirichlet-multinomial(n_t | a_t) / Multinomial(n_t | p_t)
    one arm       LR_t = (q / p)^n ((1 - q) / (1 - p))^(N - n)       q = f p / (1 - p + f p)

n_t are the users of each arm in hour t and N_t their sum, p_t the planned shares. a_t is predicted
from the hours before: with S_i = sum n_i and E_i = sum N p_i over them,

    a_i  proportional to  p_i (k p_i + S_i) / (k p_i + E_i)
    sum a = 1 / sum_i p_i^2 / (k p_i + E_i)

which for shares that do not change is a_i = k p_i + S_i, the posterior under a Dirichlet(k p)
prior, and the product the Bayes factor of Lindon and Malek. With other shares it stays a bet of
expectation 1, since a_t does not depend on n_t. For one arm, f is the fraction of its users that
arrive; LR_t is averaged over a grid of f after the product over hours.

A plan may be served late. Where the shares before are given, the hour may be a mixture of both
plans, with at most a quarter of the hour under the earlier one; the least value over the mixtures
counts.

Source: Lindon and Malek (2020), Anytime-valid inference for multinomial count data,
    arXiv:2011.03567; Cochran (1954) for the merged arms; Wasserman, Ramdas and Balakrishnan (2020),
    PNAS 117, for the least over a composite null.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError

#: Arms of fewer expected users are tested together: Cochran's rule.
MIN_EXPECTED = 5.0
#: Concentration of the prior, in users: how far from the planned shares a mismatch may lie.
PRIOR_USERS = 10_000.0
#: Fractions of an arm's users that may arrive.
KEPT = (0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.3, 0.05)
#: Parts of an hour that may have been served under the plan before.
LATE = (0.0, 0.125, 0.25)


def p_value(observed: Tensor, expected: Tensor) -> Tensor:
    """Pearson's chi-square test of counts in one hour.

    Args:
        observed: ``(*batch, arms)`` users.
        expected: ``(*batch, arms)``, of the same sums; 0 for an arm that is not compared, whose
            users are 0 too.
    Returns:
        ``(*batch)``, in [0, 1]; 1 for fewer than two cells.
    """
    observed, expected = _cells(observed.double(), expected.double())
    is_cell = expected > 0
    freedom = is_cell.sum(-1) - 1
    square = (observed - expected).square() / torch.where(is_cell, expected, 1.0)
    statistic = torch.where(is_cell, square, 0.0).sum(-1)
    p = torch.special.gammaincc(freedom.clamp_min(1).double() / 2, statistic / 2)
    value: Tensor = torch.where(freedom > 0, p, 1.0)
    return value


def mixtures(shares: Tensor, before: Tensor | None) -> Tensor:
    """The shares of an hour that began, up to a quarter of it, under the plan before.

    Args:
        shares: ``(..., arms)``, 0 for an arm that is not served.
        before: same shape, of the plan before; None where it was served in time.
    Returns:
        ``(mixtures, ..., arms)``, each summing to 1 over the served arms.
    """
    if before is None:
        mixed = shares.unsqueeze(0)
    else:
        late = shares.new_tensor(LATE).reshape(-1, *[1] * shares.ndim)
        mixed = (1 - late) * shares + late * torch.where(shares > 0, before, 0.0)
    return mixed / mixed.sum(-1, keepdim=True).clamp_min(1e-300)


def log_e_process(
    users: Tensor, shares: Tensor, before: Tensor | None = None, prior_users: float = PRIOR_USERS
) -> Tensor:
    """Evidence that the split does not follow the plan, after each hour, in nats.

    Args:
        users: ``(*batch, hours, arms)``, in the order of time; 0 where an arm was not served.
        shares: same shape, planned; 0 where an arm was not served. Each hour is rescaled to 1.
        before: same shape, of the plan before each hour's.
        prior_users: concentration of the prior.
    Returns:
        ``(*batch, hours)``: log E, at least log(1 / alpha) at any hour with probability alpha at
        most while the plan is followed.
    Raises:
        ShapeError: shapes do not fit.
    """
    _check(users, shares, before)
    users, mixed = users.double(), mixtures(shares.double(), before)
    planned = mixed[0]
    total = users.sum(-1, keepdim=True)
    expected = total * planned
    seen = users.cumsum(-2) - users
    awaited = expected.cumsum(-2) - expected
    weight = prior_users * planned
    # 0 / 0 for an arm that is not served.
    rate = (weight + seen) / (weight + awaited).clamp_min(1e-300)
    concentration = 1 / (planned.square() / (weight + awaited).clamp_min(1e-300)).sum(-1)
    alternative = planned * rate
    alternative = alternative / alternative.sum(-1, keepdim=True).clamp_min(1e-300)
    alternative = concentration.unsqueeze(-1) * alternative
    served = planned > 0
    safe = torch.where(served, alternative, 1.0)
    gain = torch.where(served, (safe + users).lgamma() - safe.lgamma(), 0.0).sum(-1)
    gain = gain + concentration.lgamma() - (concentration + total.squeeze(-1)).lgamma()
    null = torch.where(served, users * mixed.clamp_min(1e-300).log(), 0.0).sum(-1)
    return (gain - null.amax(0)).nan_to_num(0.0).cumsum(-1)


def log_e_loss(
    users: Tensor, shares: Tensor, before: Tensor | None = None, most: Tensor | float = torch.inf
) -> Tensor:
    """Evidence that an arm loses users against all others together, over all hours, in nats.

    Args:
        users: ``(hours, arms)``; NaN where an arm has not reported, which leaves it out.
        shares: ``(hours, arms)``, planned; 0 where an arm was not served.
        before: ``(hours, arms)``, of the plan before each hour's.
        most: upper limit of one hour's nats, ``(arms,)``, so that a single hour decides nothing;
            with any limit that is fixed beforehand the e-value stays one.
    Returns:
        ``(arms,)``: log E, ever at least log(1 / alpha) with probability alpha at most for an arm
        that keeps its users.
    Raises:
        ShapeError: shapes do not fit.
    """
    _check(users, shares, before)
    has = users.isfinite() & (shares > 0)
    users = torch.where(has, users.double(), 0.0)
    shares = torch.where(has, shares.double(), 0.0)
    # The least share that the mixtures give: the loss from any greater one is less likely.
    mixed = mixtures(shares, before)
    low = mixed.amin(0)
    has = has & (low > 0) & (low < 1)
    low, planned = torch.where(has, low, 0.5), torch.where(has, mixed[0], 0.5)
    others = users.sum(-1, keepdim=True) - users
    kept = low.new_tensor(KEPT).reshape(-1, 1, 1)
    # No bet where the arm would still have what the mixtures allow.
    alternative = (kept * planned / (1 - planned + kept * planned)).minimum(low)
    log_ratio = users * (alternative / low).log()
    log_ratio = log_ratio + others * ((1 - alternative) / (1 - low)).log()
    most = torch.as_tensor(most, dtype=low.dtype, device=low.device)
    log_ratio = torch.where(has, log_ratio, 0.0).minimum(most)
    process: Tensor = log_ratio.sum(-2).logsumexp(0) - torch.log(low.new_tensor(len(KEPT)))
    return process


def _cells(observed: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Merge arms of few expected users into one cell, until that cell is large enough.

    The arms in the order of ``expected``; the merged ones become zeros, the cell the last column.
    """
    expected, order = expected.sort(stable=True, dim=-1)
    observed = observed.gather(-1, order)
    is_small = (expected > 0) & (expected < MIN_EXPECTED)
    num_small = ((expected > 0).logical_not() | is_small).sum(-1, keepdim=True)
    enough = (expected.cumsum(-1) < MIN_EXPECTED).sum(-1, keepdim=True) + 1
    num_merged = torch.where(is_small.any(-1, keepdim=True), torch.maximum(num_small, enough), 0)
    merged = torch.arange(expected.shape[-1], device=expected.device) < num_merged
    parts = []
    for values in (observed, expected):
        cell = torch.where(merged, values, 0.0).sum(-1, keepdim=True)
        parts.append(torch.cat([torch.where(merged, 0.0, values), cell], dim=-1))
    return parts[0], parts[1]


def _check(users: Tensor, shares: Tensor, before: Tensor | None) -> None:
    shapes = [tuple(t.shape) for t in (users, shares, before) if t is not None]
    if users.ndim < 2 or len(set(shapes)) > 1:
        raise ShapeError(f"users and shares must be (hours, arms), all of one shape, got {shapes}")
