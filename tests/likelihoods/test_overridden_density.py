"""Distributions whose ``log_prob`` is not that of their class: what a user gets by subclassing one of numpyro's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.special import softmax

import bayestl as btl
from bayestl import curvature, likelihoods
from bayestl.predict import Predictive

KEY = jax.random.key(0)
CLASS_WEIGHTS = np.array([1.0, 5.0, 0.2])


class Weighted(dist.CategoricalLogits):
    def log_prob(self, value):
        return jnp.asarray(CLASS_WEIGHTS)[value] * super().log_prob(value)


class Focal(dist.CategoricalLogits):
    def log_prob(self, value):
        log_p = super().log_prob(value)
        return (1 - jnp.exp(log_p)) ** 2 * log_p


class Renamed(dist.CategoricalLogits):
    """Inherits its density."""


class Shifted(dist.Normal):
    """Normal around ``loc + 1``, which its inherited mean does not know."""

    def log_prob(self, value):
        return super().log_prob(value - 1)


class WeightedCategorical(likelihoods.Categorical):
    """A subclass of the likelihood itself."""

    def __call__(self, outputs):
        return Weighted(outputs)


LOGITS = np.random.default_rng(0).normal(size=(5, 3))
LABELS = np.array([0, 1, 2, 1, 0])


def _softmax_hessian(logits: np.ndarray) -> np.ndarray:
    p = softmax(logits, axis=-1)
    return p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]


def _matrices(columns: jax.Array) -> np.ndarray:
    return np.einsum("kna,knb->nab", columns, columns)


@pytest.mark.x64
@pytest.mark.parametrize(
    "likelihood", [likelihoods.from_function(Weighted), WeightedCategorical()], ids=["fn", "class"]
)
def test_class_weights_count_in_the_output_hessian(likelihood):
    columns = curvature.ggn(KEY, likelihood, jnp.asarray(LOGITS), jnp.asarray(LABELS))
    expected = CLASS_WEIGHTS[LABELS][:, None, None] * _softmax_hessian(LOGITS)
    np.testing.assert_allclose(_matrices(columns), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.x64
def test_class_weights_count_in_laplace():
    inputs = np.random.default_rng(1).normal(size=(5, 2))
    net = btl.nets.from_function(lambda p, x: x @ p, jnp.asarray(np.random.default_rng(2).normal(size=(2, 3))))
    joint = btl.LogJoint(net, likelihoods.from_function(Weighted), btl.gaussians.isotropic(net.params, 1.0), num_data=5)
    data = btl.data.arrays(jnp.asarray(inputs), jnp.asarray(LABELS))
    posterior = btl.infer.laplace(KEY, joint, net.params, data, curvature=curvature.dense(), batch_size=5)
    hessians = CLASS_WEIGHTS[LABELS][:, None, None] * _softmax_hessian(inputs @ np.asarray(net.params))
    precision = np.einsum("na,nb,nij->aibj", inputs, inputs, hessians).reshape(6, 6) + np.eye(6)
    np.testing.assert_allclose(posterior.variance.reshape(-1), np.diag(np.linalg.inv(precision)), rtol=1e-8)


@pytest.mark.x64
def test_an_indefinite_hessian_is_projected_and_the_share_reported():
    likelihood = likelihoods.from_function(Focal)
    # Far out, where the focal loss is not convex.
    logits, labels = jnp.asarray(3 * LOGITS), jnp.asarray(LABELS)

    def loss(f, y):
        log_p = jax.nn.log_softmax(f)[y]
        return -((1 - jnp.exp(log_p)) ** 2) * log_p

    values, vectors = np.linalg.eigh(jax.vmap(jax.hessian(loss))(logits, labels))
    assert values.min() < -1e-3
    expected = np.einsum("nij,nj,nkj->nik", vectors, np.maximum(values, 0), vectors)
    np.testing.assert_allclose(_matrices(curvature.ggn(KEY, likelihood, logits, labels)), expected, atol=1e-10)
    share = np.maximum(-values, 0).sum() / np.abs(values).sum()
    np.testing.assert_allclose(likelihoods.clipped_share(likelihood, logits, labels), share, rtol=1e-8)


def test_laplace_warns_of_what_it_clips():
    net = btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.zeros(1)})
    tails = likelihoods.from_function(lambda f: dist.StudentT(1.0, f, 1.0))
    joint = btl.LogJoint(net, tails, btl.gaussians.isotropic(net.params, 1.0), num_data=2)
    # Cauchy: -log p = log(1 + r^2), second derivative 2 (1 - r^2) / (1 + r^2)^2: 2 and -6/25, the second twice.
    batch = btl.Batch(jnp.ones((2, 1)), jnp.array([0.0, 2.0]), jnp.array([1.0, 2.0]))
    share = (12 / 25) / (2 + 12 / 25)
    np.testing.assert_allclose(curvature.clipped_share(joint, net.params, batch), share, rtol=1e-5)
    with pytest.warns(RuntimeWarning, match=r"19% of the eigenvalues of its Hessians.*set to 0 by the GGN.*fisher"):
        posterior = btl.infer.laplace(KEY, joint, net.params, batch)
    # One example's worth of curvature 2, of 3 that count for N = 2.
    np.testing.assert_allclose(posterior.variance["w"], 1 / (1 + 2 * 2 / 3), rtol=1e-5)


def test_an_inherited_density_is_that_of_its_class():
    columns = curvature.ggn(KEY, likelihoods.from_function(Renamed), jnp.asarray(LOGITS), None)
    np.testing.assert_allclose(_matrices(columns), _softmax_hessian(LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", [Weighted, Focal])
def test_fisher_wants_a_normalised_density(family):
    likelihood = likelihoods.from_function(family)
    with pytest.raises(TypeError, match=f"fisher needs a normalised density, but {family.__name__} overrides"):
        curvature.fisher(2)(KEY, likelihood, jnp.asarray(LOGITS), None)


def test_a_predictive_wants_a_normalised_density():
    predictive = Predictive(jnp.asarray(LOGITS)[None], likelihoods.from_function(Weighted), jnp.zeros(1))
    with pytest.raises(TypeError, match=r"probs needs a normalised density, but .* of the Weighted sum to"):
        _ = predictive.probs
    with pytest.raises(TypeError, match="an entropy needs a normalised density"):
        predictive.predictive_entropy()
    with pytest.raises(TypeError, match="sum to"):
        btl.metrics.report(predictive, LABELS)
    shifted = Predictive(jnp.zeros((1, 2)), likelihoods.from_function(lambda f: Shifted(f, 1.0)), jnp.zeros(1))
    assert not shifted.is_normal
    for name in ("mean", "variance"):
        with pytest.raises(TypeError, match="Shifted overrides log_prob and inherits 'mean' from Normal"):
            _ = getattr(shifted, name)
    with pytest.raises(TypeError, match="inherits 'cdf'"):
        shifted.cdf(jnp.zeros(2))
    with pytest.raises(TypeError, match="inherits 'sample'"):
        shifted.sample(KEY, 2)


def test_averages_and_expected_targets_want_moments_of_the_density():
    shifted = likelihoods.from_function(lambda f: Shifted(f, 1.0))
    with pytest.raises(TypeError, match=r"an expected target needs .* inherits 'mean' from Normal"):
        likelihoods.expected_target(shifted, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"an expected target needs .* of the Weighted sum to"):
        likelihoods.expected_target(likelihoods.from_function(Weighted), jnp.asarray(LOGITS))
    net = btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.zeros(2)})
    point = btl.Point(net.params)
    joint = btl.LogJoint(net, shifted, None, num_data=3)
    with pytest.raises(TypeError, match=r"a predictive's mean needs .* inherits 'mean' from Normal"):
        btl.predict.monte_carlo_average(KEY, joint, point)(jnp.ones((3, 2)))
    labels = likelihoods.from_function(lambda f: dist.CategoricalLogits(jnp.stack([f, -f], -1)[:, None]).to_event(1))
    with pytest.raises(TypeError, match="several class labels per example have no mean"):
        btl.predict.monte_carlo_average(KEY, joint.replace(likelihood=labels), point)(jnp.ones((3, 2)))


def test_links_do_not_take_an_overridden_density_for_logits():
    assert likelihoods.has_logits(likelihoods.categorical())
    assert not likelihoods.has_logits(WeightedCategorical())


class TwoThirds(dist.CategoricalLogits):
    """A normalised density of its own: class 0 twice as likely as the logits say."""

    def log_prob(self, value):
        bonus = jnp.array([np.log(2.0), 0.0, 0.0])
        return dist.CategoricalLogits(self.logits + bonus).log_prob(value)


def test_a_normalised_density_of_its_own_is_asked_for_its_probabilities():
    predictive = Predictive(jnp.asarray(LOGITS)[None], likelihoods.from_function(TwoThirds), jnp.zeros(1))
    weights = np.exp(LOGITS) * np.array([2.0, 1.0, 1.0])
    np.testing.assert_allclose(predictive.probs, weights / weights.sum(1, keepdims=True), rtol=1e-5)


class Bounded(dist.Distribution):
    """A density without a stated support."""

    support = None  # pyright: ignore[reportAssignmentType]  numpyro declares a property

    def __init__(self, location):
        self.location = location
        super().__init__(batch_shape=jnp.shape(location), validate_args=False)

    def log_prob(self, value):
        return -jnp.abs(value - self.location) - np.log(2.0)


def test_a_distribution_without_a_support_trains():
    net = btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, likelihoods.from_function(Bounded), btl.gaussians.isotropic(net.params, 1.0), num_data=3)
    data = btl.data.arrays(jnp.ones((3, 2)), jnp.ones(3))
    fitted = btl.fit(KEY, btl.infer.map_estimate(joint, optax.sgd(0.1)), net.params, data, steps=2, progress=False)
    assert np.all(fitted.params["w"] > 0)
