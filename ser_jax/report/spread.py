"""Whether a run's curve is one that a further seed of the same recipe would draw.

The rule, for a reference of n seeds:

1. A metric is averaged in 12 windows of equal length over the run, the run's and each
   seed's at the same steps: those at which the run has logged it (a seed's value there
   lies on the line between its neighbours). Windows without a value are left out. Where
   all seeds' averages are positive, their logarithms are compared: the spread of
   losses, norms and ranks goes with their size.
2. s^2, a window's variance between seeds, is the mean of its own and of those of the
   two windows on either side: so few seeds say little of one window alone, and the
   spread changes over the run. It is never less than its own.
3. s^2 has (n - 1) m degrees of freedom. m is the number of independent windows among
   the w that are pooled: m = w^2 / sum_ij r(|i - j|)^2, with r the correlation of the
   seeds' deviations from their mean between windows so far apart (Satterthwaite). Seeds
   that keep their distance from the mean throughout have m = 1.
4. A metric counts as many tests as it has independent windows, by the same sum over
   all of them; with k such tests over all metrics a further seed should lie within

       mean +- t(1 - .01 / (2 k), (n - 1) m) s sqrt(1 + 1 / n)

   everywhere in 99 of 100 cases (Bonferroni). Half a per cent of the mean is allowed in
   any case: so much another device may do.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from ser_jax.methods.metric import Metric
from ser_jax.storage.metrics import Curves

NUM_WINDOWS = 12
CHANCE = 0.01  # that a further seed lies outside in any
_FLOOR = 0.005  # of the mean
_NEIGHBOURS = 2  # windows on either side
_TINY = 1e-8  # the logarithm of what is less is taken here


@dataclasses.dataclass(frozen=True)
class Windows:
    """A metric of a run beside that of a reference's seeds, averaged in windows.

    Attributes:
        shares: Where a window's values are, mean, as a share of the whole run, `[k]`.
        run: The run's means, `[k]`.
        seeds: The seeds', `[n, k]`.
        low: Where a further seed's would lie, `[k]`.
        high: Likewise.
    """

    shares: np.ndarray
    run: np.ndarray
    seeds: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_outside(self) -> np.ndarray:
        """Whether the run's mean is none that a further seed would have, `[k]`."""
        return (self.run < self.low) | (self.run > self.high)


def compare(
    run: Curves,
    seeds: Sequence[Curves],
    metrics: Sequence[Metric],
    num_steps: float,
) -> dict[str, Windows]:
    """A run beside seeds of one recipe.

    Args:
        run: Its curves, over the steps of the seeds' runs; it need not have ended.
        seeds: Two or more.
        metrics: What is compared, where the run and all seeds have it.
        num_steps: Length of the seeds' runs.

    Returns:
        Name of a metric -> its windows.
    """
    found = {}
    for metric in metrics:
        curves = [of[metric.name] for of in (run, *seeds) if metric.name in of]
        if len(curves) > len(seeds):
            steps, values = _at_the_runs_steps(curves)
            if len(steps):
                found[metric.name] = _averaged(steps / num_steps, values)
    num_tests = sum(_num_tests(values) for _, values in found.values())
    chance = CHANCE / max(num_tests, 1)
    return {name: _windows(*averages, chance) for name, averages in found.items()}


def _at_the_runs_steps(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, `[p]`, at which all can be read; the values of all there, `[n + 1, p]`."""
    run, *seeds = curves
    first, last = max(c[0, 0] for c in seeds), min(c[-1, 0] for c in seeds)
    run = run[(run[:, 0] >= first) & (run[:, 0] <= last)]
    read = [np.interp(run[:, 0], *curve.T) for curve in seeds]
    return run[:, 0], np.stack([run[:, 1], *read])


def _averaged(shares: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean share, `[k]`, and values, `[n + 1, k]`, of windows with any."""
    ends = np.ceil(shares * NUM_WINDOWS - 1e-9).clip(1, NUM_WINDOWS)
    _, index = np.unique(ends, return_inverse=True)
    rows = [np.bincount(index, weights=row) for row in (shares, *values)]
    means = np.stack(rows) / np.bincount(index)
    return means[0], means[1:]


def _scaled(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Averages as they are compared, `[n + 1, k]`; whether these are logarithms."""
    if (values[1:] > 0).all():
        return np.log(np.maximum(values, _TINY)), True
    return values, False


def _num_tests(values: np.ndarray) -> float:
    seeds = _scaled(values)[0][1:]
    return _independent(seeds.shape[1], _pooled(seeds)[1])


def _windows(shares: np.ndarray, values: np.ndarray, chance: float) -> Windows:
    (run, *rest), is_log = _scaled(values)
    seeds = np.stack(rest)
    mean, num_seeds = seeds.mean(axis=0), len(seeds)
    deviation, freedom = spread(seeds)
    half = stats.t.isf(chance / 2, freedom) * deviation * np.sqrt(1 + 1 / num_seeds)
    half = np.maximum(half, _FLOOR * (1 if is_log else np.abs(mean)))
    low, high = mean - half, mean + half
    if is_log:
        low, high = np.exp(low), np.exp(high)
    return Windows(shares, values[0], values[1:], low, high)


def spread(seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far seeds are apart: rules 2 and 3.

    Args:
        seeds: Averages of two or more seeds in windows, `[n, k]`.

    Returns:
        Standard deviation, `[k]`, and its degrees of freedom, `[k]`.
    """
    own = seeds.var(axis=0, ddof=1)
    pooled, deviations = _pooled(seeds)
    independent = [_independent(len(pool), deviations) for pool in _pools(len(own))]
    return (
        np.sqrt(np.maximum(own, pooled)),
        (len(seeds) - 1) * np.array(independent),
    )


def _pools(num_windows: int) -> list[range]:
    """Windows that are pooled for each."""
    return [
        range(max(i - _NEIGHBOURS, 0), min(i + _NEIGHBOURS + 1, num_windows))
        for i in range(num_windows)
    ]


def _pooled(seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance pooled over neighbours, `[k]`; deviations in units of it, `[n, k]`."""
    own = seeds.var(axis=0, ddof=1)
    pooled = np.array([own[list(pool)].mean() for pool in _pools(len(own))])
    deviations = seeds - seeds.mean(axis=0)
    return pooled, deviations / np.sqrt(np.where(pooled > 0, pooled, 1))


def _independent(width: int, deviations: np.ndarray) -> float:
    """As how many independent windows so many neighbours count, of `[n, k]`."""
    pairs = sum(
        (width - lag) * _correlation(deviations, lag) ** 2 for lag in range(1, width)
    )
    return width**2 / (width + 2 * pairs)


def _correlation(deviations: np.ndarray, lag: int) -> float:
    """Correlation of deviations so many windows apart."""
    a, b = deviations[:, :-lag], deviations[:, lag:]
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm else 0.0
