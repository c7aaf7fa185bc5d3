import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

import bayestl as btl
from bayestl import gaussians, likelihoods
from bayestl.predict import monte_carlo, monte_carlo_average
from tests.predict.answers import answer


def network(params, state, inputs, key):
    assert key is None
    return jnp.tanh(inputs["x"] @ params["w"]) + params["b"] + state, state


MEAN = {"w": jnp.ones((3, 4)), "b": jnp.zeros(4)}


def joint_of(apply: Any, state: Any, params: Any = MEAN) -> btl.LogJoint:
    return btl.LogJoint(btl.Net(params, state, apply), likelihoods.categorical(), None, num_data=10)


JOINT = joint_of(network, jnp.array(0.25))
POSTERIOR = gaussians.isotropic(MEAN, scale=0.7)
INPUTS = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(10, 3)), jnp.float32)}


def by_hand(draws, inputs):
    return np.stack(
        [
            np.tanh(np.asarray(inputs["x"]) @ np.asarray(w)) + np.asarray(b) + 0.25
            for w, b in zip(draws["w"], draws["b"], strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("batch_size", "sample_chunk"), [(None, None), (4, None), (None, 3), (4, 3), (5, 7), (1, 1), (64, 20)]
)
def test_outputs_are_those_of_the_draws_whatever_the_chunks(batch_size, sample_chunk):
    key = jax.random.key(1)
    predictive = monte_carlo(key, JOINT, POSTERIOR, 7, batch_size=batch_size, sample_chunk=sample_chunk)(INPUTS)
    expected = by_hand(POSTERIOR.sample(key, 7), INPUTS)
    np.testing.assert_allclose(predictive.outputs, expected, atol=1e-5)  # float32 matrix products
    np.testing.assert_allclose(predictive.log_weights, -np.log(7), rtol=1e-6)


def test_regression_against_the_exact_predictive():
    # f(x) = w x with w ~ N(1, 0.5^2), noise 0.3: y ~ N(x, 0.25 x^2 + 0.09) exactly.
    net = btl.nets.from_function(lambda params, x: x * params["w"], {"w": jnp.array(1.0)})
    joint = btl.LogJoint(net, likelihoods.normal(0.3), None, num_data=10)
    num = 20_000
    predictive = monte_carlo(
        jax.random.key(0), joint, gaussians.isotropic(net.params, scale=0.5), num, sample_chunk=num
    )(jnp.array([0.0, 1.0, -2.0]))
    mean, variance = np.array([0.0, 1.0, -2.0]), np.array([0.09, 0.34, 1.09])
    # standard errors of a mean and of a variance over num normal draws
    np.testing.assert_allclose(predictive.mean, mean, atol=5 * np.sqrt(1.0 / num))
    np.testing.assert_allclose(predictive.variance, variance, atol=5 * np.sqrt(2.0 / num))
    np.testing.assert_allclose(predictive.function_variance(), variance - 0.09, atol=5 * np.sqrt(2.0 / num))
    # a density averaged over draws: its relative spread is below 3 here
    np.testing.assert_allclose(
        predictive.log_prob(jnp.array([0.1, 1.5, -1.0])),
        norm.logpdf([0.1, 1.5, -1.0], mean, np.sqrt(variance)),
        atol=5 * 3 / np.sqrt(num),
    )


def test_weighted_draws_are_taken_as_they_are():
    draws = POSTERIOR.sample(jax.random.key(2), 3)
    weighted = btl.Samples(draws, jnp.log(jnp.array([1.0, 2.0, 5.0])))
    predictive = monte_carlo(jax.random.key(0), JOINT, weighted)(INPUTS)
    np.testing.assert_allclose(predictive.outputs, by_hand(draws, INPUTS), atol=1e-5)  # float32 matrix products
    np.testing.assert_allclose(np.exp(predictive.log_weights), [0.125, 0.25, 0.625], rtol=1e-6)
    assert monte_carlo(jax.random.key(0), JOINT, weighted, 5)(INPUTS).log_weights.shape == (5,)


def test_a_point_needs_no_number():
    predictive = monte_carlo(jax.random.key(0), JOINT, btl.Point(MEAN))(INPUTS)
    np.testing.assert_allclose(predictive.outputs, by_hand(jax.tree.map(lambda x: x[None], MEAN), INPUTS), atol=1e-5)
    assert predictive.log_weights.tolist() == [0.0]


def test_padding_runs_through_the_network_as_a_valid_input():
    seen = []

    def recording(params, state, inputs, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), inputs)
        return inputs[:, None] * params["w"], state

    joint = joint_of(recording, (), {"w": jnp.ones(2)})
    point = btl.Point({"w": jnp.ones(2)})
    outputs = monte_carlo(jax.random.key(0), joint, point, batch_size=4)(jnp.arange(1, 7)).outputs
    jax.effects_barrier()
    assert outputs.shape == (1, 6, 2)
    assert {int(x) for x in np.concatenate(seen)} == {1, 2, 3, 4, 5, 6}  # never 0
    assert {len(x) for x in seen} == {4}


def test_compiles_once_for_posteriors_of_one_network():
    count = []

    def counting(params, state, inputs, key):
        count.append(1)
        return inputs @ params["w"], state

    joint = joint_of(counting, (), {"w": jnp.ones((3, 2))})
    for seed in range(3):
        posterior = gaussians.isotropic({"w": jnp.full((3, 2), float(seed))}, scale=1.0)
        monte_carlo(jax.random.key(seed), joint, posterior, 5)(jnp.ones((4, 3)))
        if seed == 0:
            traced = len(count)
    assert len(count) == traced <= 2  # once for the shapes of what comes out, once for the program


def test_under_jit_and_vmap_over_posteriors():
    def mean_probs(scale):
        posterior = gaussians.isotropic(MEAN, scale=scale)
        return monte_carlo(jax.random.key(3), JOINT, posterior, 5, batch_size=4)(INPUTS).probs

    together = jax.jit(jax.vmap(mean_probs))(jnp.array([0.1, 1.0]))
    np.testing.assert_allclose(together[1], mean_probs(1.0), atol=1e-5)  # float32 matrix products


def test_bad_numbers():
    with pytest.raises(ValueError, match="num_samples is needed to draw from a Diagonal"):
        monte_carlo(jax.random.key(0), JOINT, POSTERIOR)
    for name, values in [("num_samples", (0, None, None)), ("batch_size", (1, 0, None)), ("sample_chunk", (1, 1, 0))]:
        num, batch, chunk = values
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            monte_carlo(jax.random.key(0), JOINT, POSTERIOR, num, batch_size=batch, sample_chunk=chunk)


# ---------------------------------------------------------------- averages alone


def averaged_by_hand(logits, weights):
    """Averaged probabilities and averaged entropies."""
    probs = softmax(logits.astype(np.float64), axis=-1)
    return np.einsum("s,sbc->bc", weights, probs), weights @ -np.sum(probs * np.log(probs), axis=-1)


@pytest.mark.parametrize(("batch_size", "sample_chunk"), [(None, None), (4, 3)])
def test_averages_of_classes_whatever_the_chunks(batch_size, sample_chunk):
    draws = POSTERIOR.sample(jax.random.key(2), 5)
    weights = np.array([0.1, 0.2, 0.3, 0.1, 0.3])
    weighted = btl.Samples(draws, jnp.log(jnp.asarray(weights)))
    given = monte_carlo_average(jax.random.key(0), JOINT, weighted, batch_size=batch_size, sample_chunk=sample_chunk)(
        INPUTS
    )
    probs, inside = averaged_by_hand(by_hand(draws, INPUTS), weights)
    total = -np.sum(probs * np.log(probs), axis=-1)
    labels = np.arange(10) % 4
    log_prob = np.log(probs[np.arange(10), labels])
    for found, expected in zip(facts(given, labels), (log_prob, probs, total, inside, total - inside), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 matrix products
    whole = monte_carlo(jax.random.key(0), JOINT, weighted)(INPUTS)
    np.testing.assert_allclose(btl.metrics.nll(given, labels), btl.metrics.nll(whole, labels), atol=1e-5)


@jax.jit
def facts(given, labels):
    """What it says of classes, in one program."""
    entropies = given.predictive_entropy(), given.expected_entropy(), given.mutual_information()
    return given.log_prob(labels), given.probs, *entropies


def test_averages_of_real_targets():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.ones((3, 2))})
    net = btl.nets.with_log_scale(net, 0.5)
    joint = btl.LogJoint(net, likelihoods.normal(), None, num_data=10)
    draws = gaussians.isotropic(net.params, scale=0.3).sample(jax.random.key(1), 6)
    weighted = btl.Samples(draws, jnp.log(jnp.array([0.0, 0.1, 0.2, 0.3, 0.1, 0.3])))
    whole = monte_carlo(jax.random.key(0), joint, weighted)(INPUTS["x"])
    # A weight of zero alone in the first chunk, and a last chunk that is not full.
    for chunk in (1, 4):
        given = monte_carlo_average(jax.random.key(0), joint, weighted, batch_size=3, sample_chunk=chunk)(INPUTS["x"])
        for name in ("mean", "variance", "function_variance", "expected_variance"):
            expected = answer(whole, name)
            np.testing.assert_allclose(answer(given, name), expected, rtol=1e-4)  # float32 sums
    with pytest.raises(TypeError, match=r"density needs every sample's outputs.*predict.monte_carlo"):
        given.log_prob(jnp.zeros((10, 2)))


def test_averages_of_yes_or_no():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.ones(3)})
    joint = btl.LogJoint(net, likelihoods.bernoulli(), None, num_data=10)
    draws = gaussians.isotropic(net.params, scale=0.3).sample(jax.random.key(1), 4)
    weighted = btl.Samples(draws, jnp.zeros(4))
    given = monte_carlo_average(jax.random.key(0), joint, weighted)(INPUTS["x"])
    whole = monte_carlo(jax.random.key(0), joint, weighted)(INPUTS["x"])
    labels = np.arange(10) % 2
    for found, expected in zip(facts(given, labels), facts(whole, labels), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 rounding
    assert set(np.unique(given.sample(jax.random.key(0), 50))) == {0, 1}


def test_fresh_draws_are_those_of_the_posterior():
    # f = w x with w ~ N(1, 0.5^2): the mean over S draws has standard error 0.5 |x| / sqrt(S).
    net = btl.nets.from_function(lambda params, x: x * params["w"], {"w": jnp.array(1.0)})
    joint = btl.LogJoint(net, likelihoods.normal(0.3), None, num_data=10)
    posterior = gaussians.isotropic(net.params, scale=0.5)
    num = 10_050  # the last of the chunks is half full
    predict = monte_carlo_average(jax.random.key(0), joint, posterior, num, sample_chunk=100)
    given = predict(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(given.mean, [1.0, -2.0], atol=5 * 0.5 * 2 / np.sqrt(num))
    np.testing.assert_allclose(given.function_variance(), [0.25, 1.0], rtol=5 * np.sqrt(2 / num))
    np.testing.assert_allclose(given.expected_variance(), 0.09, rtol=1e-4)  # float32 sum of the weights
    np.testing.assert_array_equal(predict(jnp.array([1.0, -2.0])).mean, given.mean)


def test_neither_all_draws_nor_all_outputs_are_ever_held():
    num, size, classes = 64, 10_000, 50
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((200, classes))})
    joint = btl.LogJoint(net, likelihoods.categorical(), None, num_data=10)

    def probs(mean, inputs):
        posterior = gaussians.isotropic({"w": mean}, scale=1.0)
        return monte_carlo_average(jax.random.key(0), joint, posterior, num, batch_size=100)(inputs).probs

    shapes = (jax.ShapeDtypeStruct((200, classes), jnp.float32), jax.ShapeDtypeStruct((size, 200), jnp.float32))
    memory = jax.jit(probs).lower(*shapes).compile().memory_analysis()
    # The inputs once more, cut into batches, and a few arrays (B, C); all outputs would be 64 x 10,000 x 50 numbers.
    assert memory.temp_size_in_bytes < 4 * (size * 200 + 8 * size * classes)


def test_averages_compile_once_and_run_under_vmap():
    count = []

    def counting(params, state, inputs, key):
        count.append(1)
        return inputs @ params["w"], state

    joint = joint_of(counting, (), {"w": jnp.ones((3, 2))})

    def probs(scale):
        posterior = gaussians.isotropic({"w": jnp.ones((3, 2))}, scale)
        return monte_carlo_average(jax.random.key(3), joint, posterior, 5, batch_size=2)(jnp.ones((4, 3))).probs

    one = probs(1.0)
    traced = len(count)
    probs(2.0)
    assert len(count) == traced
    np.testing.assert_allclose(jax.jit(jax.vmap(probs))(jnp.array([0.5, 1.0]))[1], one, atol=1e-6)  # float32 rounding


def test_bad_numbers_for_averages():
    with pytest.raises(ValueError, match="num_samples is needed to draw from a Diagonal"):
        monte_carlo_average(jax.random.key(0), JOINT, POSTERIOR)
    with pytest.raises(ValueError, match="sample_chunk is 0; it must be at least 1"):
        monte_carlo_average(jax.random.key(0), JOINT, POSTERIOR, 3, sample_chunk=0)


def test_predictions_that_are_nan_are_named():
    key = jax.random.key(0)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.ones((2, 3))})
    posterior = btl.gaussians.isotropic(net.params, 0.5)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=5)
    inputs = jnp.ones((5, 2)).at[3, 1].set(jnp.nan)
    predicts = (
        btl.predict.monte_carlo(key, joint, posterior, 2),
        btl.predict.monte_carlo_average(key, joint, posterior, 2),
        btl.predict.linearized(joint, posterior),
        btl.predict.linearized_joint(joint, posterior),
    )
    for predict in predicts:
        with pytest.warns(RuntimeWarning, match="for 1 of 5 inputs are NaN, the first in row 3: this input") as told:
            predict(inputs)
        assert [warning.filename for warning in told] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predict(jnp.ones((5, 2)))
    broken = btl.Point({"w": jnp.full((2, 3), jnp.nan)})
    with pytest.warns(RuntimeWarning, match="for 5 of 5 inputs are NaN, the first in row 0: the network"):
        btl.predict.monte_carlo(key, joint, broken)(jnp.ones((5, 2)))
