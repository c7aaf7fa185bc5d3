"""Class weights: scikit-learn's sample weights, and Hessians multiplied by the weight of the label."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

import bayestl as btl
from bayestl import curvature, likelihoods

KEY = jax.random.key(0)
WEIGHTS = np.array([1.0, 5.0, 0.2])
LOGITS = np.random.default_rng(0).normal(size=(6, 3))
LABELS = np.array([0, 1, 2, 1, 0, 2])


def _weighted():
    return likelihoods.class_weighted(likelihoods.categorical(), WEIGHTS)


@pytest.mark.x64
def test_an_example_counts_by_the_weight_of_its_class():
    each = _weighted()(jnp.asarray(LOGITS)).log_prob(jnp.asarray(LABELS))
    assert each.shape == (6,)
    expected = log_loss(LABELS, softmax(LOGITS, axis=1), sample_weight=WEIGHTS[LABELS], normalize=False)
    np.testing.assert_allclose(-each.sum(), expected, rtol=1e-10)
    columns = curvature.ggn(KEY, _weighted(), jnp.asarray(LOGITS), jnp.asarray(LABELS))
    p = softmax(LOGITS, axis=1)
    hessians = WEIGHTS[LABELS][:, None, None] * (p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :])
    np.testing.assert_allclose(np.einsum("kna,knb->nab", columns, columns), hessians, atol=1e-12)
    # The weight of the label is that of the row.
    net = btl.nets.from_function(lambda params, x: x @ params, jnp.asarray(LOGITS[:2]))
    prior = btl.gaussians.isotropic(net.params, 1.0)
    inputs = jnp.asarray(LOGITS[:, :2])
    batch = btl.Batch(inputs, jnp.asarray(LABELS), jnp.asarray(WEIGHTS[LABELS]))
    rows = btl.LogJoint(net, likelihoods.categorical(), prior, num_data=WEIGHTS[LABELS].sum())
    labels = btl.LogJoint(net, _weighted(), prior, num_data=6)
    np.testing.assert_allclose(labels(net.params, batch._replace(weights=None)), rows(net.params, batch), rtol=1e-10)


def test_of_yes_or_no():
    likelihood = likelihoods.class_weighted(likelihoods.bernoulli(), [1.0, 3.0])
    each = likelihood(jnp.array([0.5, 0.5])).log_prob(jnp.array([True, False]))
    np.testing.assert_allclose(each, [-3 * np.log1p(np.exp(-0.5)), -np.log1p(np.exp(0.5))], rtol=1e-6)
    impossible = likelihoods.class_weighted(likelihoods.bernoulli(), [0.0, 1.0])(jnp.array([jnp.inf]))
    assert impossible.log_prob(jnp.array([0])) == 0


def test_predictions_are_those_of_the_likelihood_itself_and_samples_are_refused():
    net = btl.nets.from_function(lambda params, x: x @ params, jnp.asarray(LOGITS[:2], jnp.float32))
    posterior = btl.gaussians.isotropic(net.params, 0.5)
    inputs = jnp.asarray(LOGITS[:, :2], jnp.float32)
    joint = btl.LogJoint(net, _weighted(), posterior, num_data=6)
    given = btl.predict.linearized(joint, posterior)(inputs)
    expected = btl.predict.linearized(joint.replace(likelihood=likelihoods.categorical()), posterior)(inputs)
    np.testing.assert_array_equal(given.probs, expected.probs)
    assert btl.metrics.report(given, LABELS) == btl.metrics.report(expected, LABELS)
    with pytest.raises(TypeError, match=r"fisher draws labels from the density.*give kind=curvature.ggn"):
        curvature.fisher(2)(KEY, _weighted(), jnp.asarray(LOGITS), None)
    with pytest.raises(TypeError, match="no labels can be drawn from it"):
        _weighted()(jnp.asarray(LOGITS)).sample(KEY)


def test_what_does_not_fit():
    for weights in (np.ones((2, 2)), [1.0, -1.0], [np.nan, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match=r"weights (have shape|are)"):
            likelihoods.class_weighted(likelihoods.categorical(), weights)
    with pytest.raises(ValueError, match="weights hold 3 numbers, but the likelihood is over 4 classes"):
        _weighted()(jnp.zeros((2, 4)))
    with pytest.raises(TypeError, match="class_weighted is on top of a likelihood of one class per example"):
        likelihoods.class_weighted(likelihoods.normal(1.0), WEIGHTS)(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="1 of 2 targets lie outside"):
        likelihoods.check(_weighted(), jax.ShapeDtypeStruct((2, 3), jnp.float32), np.array([0, -1]))
