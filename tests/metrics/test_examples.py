"""What holds for every metric: padding changes nothing, no example at all gives NaN, vmap works."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive

NUM, PADDING = 13, 5
LOG_WEIGHTS = jnp.log(jnp.array([0.3, 0.7]))


def errors_of_one_bin(predictive, targets, weights=None):
    """With more bins than examples, padding would have bins of its own."""
    return metrics.ece(predictive, targets, weights, num_bins=1) + metrics.ece_equal_mass(
        predictive, targets, weights, num_bins=1
    )


CLASSES = [
    metrics.accuracy,
    metrics.macro_accuracy,
    metrics.nll,
    metrics.brier,
    metrics.ece,
    metrics.ece_equal_mass,
    metrics.reliability_bins,
    errors_of_one_bin,
]
MEANS = [metrics.accuracy, metrics.nll, metrics.brier, metrics.crps, metrics.interval_coverage]
NUMBERS = [metrics.nll, metrics.rmse, metrics.crps, metrics.interval_coverage]


def _case(metric, kind):
    rng = np.random.default_rng(0)
    if kind == "classes":
        return likelihoods.categorical(), rng.normal(size=(2, NUM, 3)), rng.integers(0, 3, NUM), -1
    if kind == "binary":
        return likelihoods.bernoulli(), rng.normal(size=(2, NUM)), rng.integers(0, 2, NUM), -1
    shape = (NUM,) if kind == "numbers" else (NUM, 2)
    return likelihoods.normal(0.7), rng.normal(size=(2, *shape)), rng.normal(size=shape).astype(np.float32), np.nan


CASES = [(metric, kind) for kind in ("classes", "binary") for metric in CLASSES]
CASES += [(metric, kind) for kind in ("numbers", "several numbers") for metric in NUMBERS]


def _ids(case):
    return f"{case[0].__name__}-{case[1]}"


def _padded(values, fill, axis):
    pad = [(0, 0)] * values.ndim
    pad[axis] = (0, PADDING)
    return np.pad(values, pad, constant_values=fill)


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_padding_changes_nothing(case):
    likelihood, outputs, targets, label = _case(*case)
    metric = jax.jit(case[0])
    expected = metric(Predictive(jnp.asarray(outputs), likelihood, LOG_WEIGHTS), targets)
    mask = np.arange(NUM + PADDING) < NUM
    for fill, label_fill in itertools.product([0.0, 50.0, np.nan], [0, label]):
        predictive = Predictive(jnp.asarray(_padded(outputs, fill, 1)), likelihood, LOG_WEIGHTS)
        found = metric(predictive, _padded(targets, label_fill, 0), mask)
        # sums of NUM float32 numbers in another order
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), found, expected)
    as_numbers = metric(predictive, _padded(targets, label, 0), mask.astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, as_numbers, found)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in MEANS], ids=_ids)
def test_batches_combine_by_their_counts(case):
    likelihood, outputs, targets, _ = _case(*case)
    metric = jax.jit(case[0])
    whole = metric(Predictive(jnp.asarray(outputs), likelihood, LOG_WEIGHTS), targets)
    parts = [
        metric(Predictive(jnp.asarray(outputs[:, rows]), likelihood, LOG_WEIGHTS), targets[rows])
        for rows in (slice(0, 4), slice(4, NUM))
    ]
    np.testing.assert_allclose((4 * parts[0] + 9 * parts[1]) / NUM, whole, rtol=1e-5)  # float32 rounding


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_no_example_at_all_gives_nan(case):
    likelihood, outputs, targets, _ = _case(*case)
    found = jax.jit(case[0])(Predictive(jnp.asarray(outputs), likelihood, LOG_WEIGHTS), targets, np.zeros(NUM))
    if case[0] is metrics.reliability_bins:
        assert np.isnan(found.confidence).all()
        assert found.count.sum() == 0
    else:
        assert np.isnan(found)


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_under_vmap(case):
    likelihood, outputs, targets, _ = _case(*case)

    def value(outputs):
        return case[0](Predictive(outputs, likelihood, LOG_WEIGHTS), targets)

    both = jax.jit(jax.vmap(value))(jnp.stack([jnp.asarray(outputs), jnp.asarray(outputs) + 1]))
    expected = jax.jit(value)(jnp.asarray(outputs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6), both, expected)  # float32
