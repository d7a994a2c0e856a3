"""A surrogate of the protocol in forty lines: Bayesian regression on a quadratic basis."""

import torch


class Quadratic:
    """Weights of 1, x and products of two x are normal a priori; each metric has its own scale."""

    def fit(self, x, mean, var, shared):
        scale = mean.nan_to_num().square().mean(0).sqrt()
        return QuadraticPosterior(scale, x, mean, var, shared)


class QuadraticPosterior:
    def __init__(self, scale, x, mean, var, shared):
        self.scale, self.parts = scale, []
        for m in range(mean.shape[1]):
            rows = mean[:, m].isfinite()
            phi = basis(x[rows])
            noise = torch.diag(var[rows, m].clamp_min(1e-8 * scale[m] ** 2))
            if shared is not None:
                together = shared[m][rows][:, rows]
                noise = noise + together - torch.diag(together.diagonal())
            weighed = torch.linalg.solve(noise, phi)
            precision = phi.T @ weighed + torch.eye(phi.shape[1], dtype=x.dtype) / scale[m] ** 2
            covariance = torch.linalg.inv(precision)
            covariance = (covariance + covariance.T) / 2
            self.parts.append((covariance @ (weighed.T @ mean[rows, m]), covariance))

    def marginal(self, x):
        phi = basis(x)
        mean = torch.stack([phi @ w for w, _ in self.parts], -1)
        return mean, torch.stack([((phi @ c) * phi).sum(-1) for _, c in self.parts], -1)

    def covariance(self, x):
        return torch.stack([basis(x) @ c @ basis(x).T for _, c in self.parts])

    def paths(self, num_paths, generator):
        draws = []
        for w, c in self.parts:
            normal = torch.randn(num_paths, len(w), generator=generator, dtype=w.dtype)
            draws.append(w + normal @ torch.linalg.cholesky(c).T)
        weights = torch.stack(draws)  # (metrics, paths, features)
        return lambda x: torch.einsum("nf,mpf->pnm", basis(x), weights)

    def condition(self, x, mean, var, shared):
        return QuadraticPosterior(self.scale, x, mean, var, shared)


def basis(x):
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)
