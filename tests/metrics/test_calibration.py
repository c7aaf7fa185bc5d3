import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from bayestl import metrics
from bayestl.predict import from_probabilities

ece = jax.jit(metrics.ece, static_argnames="num_bins")
ece_equal_mass = jax.jit(metrics.ece_equal_mass, static_argnames="num_bins")
reliability_bins = jax.jit(metrics.reliability_bins, static_argnames="num_bins")


def answers(seed, num, classes=4, levels=None):
    """Probabilities (num, classes) in float32, and labels; with ``levels``, confidences that are often tied."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(classes), size=num)
    if levels:
        top = rng.integers(levels // 2 + 1, levels, size=num) / levels
        probs = np.concatenate([top[:, None], np.repeat((1 - top[:, None]) / (classes - 1), classes - 1, 1)], axis=1)
    probs = probs.astype(np.float32)
    # Right in 7 of 10 cases at every confidence: gaps of both signs, which an error in the bins would let cancel.
    right = rng.uniform(size=num) < 0.7
    return probs, np.where(right, probs.argmax(axis=1), probs.argmin(axis=1))


def by_width(probs, labels, num_bins):
    """ECE as a plain loop over the bins (k/M, (k+1)/M]."""
    confidence, correct = probs.max(axis=1).astype(float), probs.argmax(axis=1) == labels
    error = 0.0
    for k in range(num_bins):
        inside = (confidence > k / num_bins) & (confidence <= (k + 1) / num_bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


def by_mass(probs, labels, num_bins):
    """ECE over bins of equal counts as a plain loop, examples of one confidence sharing their accuracy."""
    confidence, correct = probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(float)
    shared = np.array([correct[confidence == c].mean() for c in confidence])
    ranked = sorted(range(len(labels)), key=lambda i: confidence[i])
    bins = [[] for _ in range(num_bins)]
    for rank, i in enumerate(ranked):
        bins[rank * num_bins // len(labels)].append(i)
    return sum(len(b) / len(labels) * abs(shared[b].mean() - confidence[b].astype(float).mean()) for b in bins if b)


def test_bins_of_two_classes_are_those_of_sklearn():
    probs, labels = answers(0, 300, classes=2)
    bins = reliability_bins(from_probabilities(probs), labels, num_bins=10)
    right = (probs.argmax(axis=1) == labels).astype(int)
    shares, means = calibration_curve(right, probs.max(axis=1), n_bins=10)
    some = np.asarray(bins.count) > 0
    np.testing.assert_allclose(np.asarray(bins.accuracy)[some], shares, atol=1e-6)
    np.testing.assert_allclose(np.asarray(bins.confidence)[some], means, atol=1e-6)


def test_bootstrap_gives_the_error_an_interval():
    probs, labels = answers(0, 60)
    made = metrics.bootstrap(
        jax.random.key(0), lambda both: ece(from_probabilities(both[0]), both[1]), (probs, labels), num_bootstrap=100
    )
    assert made.value == pytest.approx(by_width(probs, labels, 15), abs=5e-6)
    rng = np.random.default_rng(0)
    rows = rng.integers(60, size=(2000, 60))
    values = [by_width(probs[row], labels[row], 15) for row in rows]
    assert made.standard_error == pytest.approx(np.std(values), rel=0.3)
    np.testing.assert_allclose(made.interval, np.quantile(values, [0.025, 0.975]), atol=0.05)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize(("seed", "num"), [(0, 200), (1, 10)])
def test_ece_is_the_loop_over_bins(seed, num, num_bins):
    probs, labels = answers(seed, num)
    found = ece(from_probabilities(probs), labels, num_bins=num_bins)
    np.testing.assert_allclose(found, by_width(probs, labels, num_bins), atol=5e-6)  # float32 sums of a few hundred


def test_a_confidence_on_an_edge_falls_into_the_bin_below():
    probs = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    bins = reliability_bins(from_probabilities(probs), np.array([0, 0, 0]), num_bins=4)
    assert bins.count.tolist() == [0, 1, 1, 1]


def test_reliability_bins_hold_means_and_counts():
    probs = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]])
    bins = reliability_bins(from_probabilities(probs), np.array([0, 1, 1]), num_bins=4)
    assert bins.count.tolist() == [0, 0, 2, 1]
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.65, 0.9], rtol=1e-6)  # float32 rounding
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 0.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize(("seed", "num", "levels"), [(0, 200, None), (1, 10, None), (2, 203, 8), (3, 50, 6)])
def test_equal_mass_is_the_loop_over_ranks(seed, num, levels, num_bins):
    probs, labels = answers(seed, num, levels=levels)
    found = ece_equal_mass(from_probabilities(probs), labels, num_bins=num_bins)
    np.testing.assert_allclose(found, by_mass(probs, labels, num_bins), atol=5e-6)  # float32 sums of a few hundred


def test_equal_mass_does_not_depend_on_the_order_of_tied_examples():
    probs, labels = answers(4, 101, levels=6)
    found = ece_equal_mass(from_probabilities(probs), labels)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(101)
        shuffled = ece_equal_mass(from_probabilities(probs[order]), labels[order])
        np.testing.assert_allclose(shuffled, found, atol=5e-6)  # float32 sums in another order


def test_equal_mass_with_a_mask_is_that_of_the_real_examples():
    probs, labels = answers(5, 120, levels=6)
    # Padding in the middle, tied with real examples and confident beyond them.
    mask = np.random.default_rng(6).integers(0, 2, 120)
    padded = np.where(mask[:, None] == 1, probs, np.array([1.0, 0, 0, 0]))
    padded[:10] = probs[:10]
    found = ece_equal_mass(from_probabilities(padded), labels, mask, num_bins=9)
    expected = by_mass(probs[mask == 1], labels[mask == 1], 9)
    np.testing.assert_allclose(found, expected, atol=5e-6)  # float32 sums


def test_a_calibrated_classifier_has_a_small_error_and_an_overconfident_one_its_gap():
    rng = np.random.default_rng(7)
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > confidence).astype(int)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    # Sampling error of a bin of about n/8 examples is sqrt(p(1-p)/n): on average below 0.01 here.
    assert ece(from_probabilities(probs), labels) < 0.015
    assert ece_equal_mass(from_probabilities(probs), labels) < 0.015
    sure = np.tile(np.array([[1.0, 0.0]]), (20_000, 1))
    np.testing.assert_allclose(ece(from_probabilities(sure), labels), labels.mean(), atol=1e-5)


def test_many_examples_add_up_in_float32():
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (1_000_000, 1))
    bins = reliability_bins(from_probabilities(probs), np.zeros(1_000_000, int), num_bins=10)
    np.testing.assert_allclose(np.nanmax(bins.confidence), 0.9, rtol=1e-5)  # float32 rounding of a sum in a tree


def test_gradients_are_finite_with_empty_bins():
    def calibration(logits):
        given = from_probabilities(jax.nn.softmax(logits))
        labels = jnp.array([0, 1, 0])
        return ece(given, labels) + ece_equal_mass(given, labels)

    gradient = jax.jit(jax.grad(calibration))(jnp.array([[1.0, 0.0], [0.2, 0.0], [3.0, 0.0]]))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("metric", [metrics.ece, metrics.ece_equal_mass, metrics.reliability_bins])
def test_at_least_one_bin(metric):
    with pytest.raises(ValueError, match="num_bins is 0; it must be at least 1"):
        metric(from_probabilities(np.array([[0.5, 0.5]])), np.array([0]), num_bins=0)
