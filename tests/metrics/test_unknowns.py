import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from bayestl import metrics

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)) + 3.0
LABELS = np.arange(60) % 3
OTHERS = RNG.normal(size=(7, 4))


def test_energy_is_the_log_of_the_normaliser():
    logits = RNG.normal(size=(5, 3)) * 100
    expected = -2 * logsumexp(logits / 2, axis=1)
    np.testing.assert_allclose(metrics.energy(logits, temperature=2.0), expected)


def test_mahalanobis_is_the_smallest_distance_of_sklearn():
    means = np.stack([FEATURES[c == LABELS].mean(0) for c in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(FEATURES - means[LABELS])
    expected = np.min([within.mahalanobis(OTHERS - mean) for mean in means], 0)
    np.testing.assert_allclose(metrics.mahalanobis(FEATURES, LABELS, shrinkage=1e-14)(OTHERS), expected, rtol=1e-8)
    whole = EmpiricalCovariance().fit(FEATURES).mahalanobis(OTHERS)
    relative = metrics.mahalanobis(FEATURES, LABELS, relative=True, shrinkage=1e-14)(OTHERS)
    np.testing.assert_allclose(relative, expected - whole, rtol=1e-7)


def test_fewer_examples_than_features_will_do():
    few = RNG.normal(size=(6, 20))
    scores = metrics.mahalanobis(few, [0, 0, 0, 1, 1, 1])(np.concatenate([few, few + 5]))
    assert np.isfinite(scores).all()
    assert scores[6:].min() > scores[:6].max()


@pytest.mark.parametrize("normalize", [False, True])
def test_neighbours_are_those_of_sklearn(normalize):
    train, test = FEATURES, OTHERS
    if normalize:
        train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    expected = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1]
    scores = metrics.nearest_neighbours(FEATURES, num_neighbours=5, normalize=normalize)(OTHERS)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="features have 3 columns, but those of the training examples had 4"):
        metrics.mahalanobis(FEATURES, LABELS)(OTHERS[:, :3])
    with pytest.raises(ValueError, match="features do not vary"):
        metrics.mahalanobis(np.ones((4, 2)), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="num_neighbours is 61; give 1 to 60"):
        metrics.nearest_neighbours(FEATURES, num_neighbours=61)
    with pytest.raises(ValueError, match=r"features is not finite for 1 of 2 examples"):
        metrics.nearest_neighbours([[1.0], [np.inf]])
    with pytest.raises(ValueError, match="give one label per example"):
        metrics.mahalanobis(FEATURES, LABELS[:3])
