import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from bayestl import likelihoods
from bayestl.predict import Predictive, from_probabilities

WEIGHTS = np.array([0.2, 0.5, 0.3])


def entropy(probs):
    logs = np.log(np.where(probs > 0, probs, 1))
    return -np.sum(probs * logs, axis=-1)


def of_classes(spread=2.0):
    logits = spread * np.random.default_rng(0).normal(size=(3, 6, 4))
    probs = softmax(logits, axis=-1)
    return Predictive(jnp.asarray(logits), likelihoods.categorical(), jnp.log(WEIGHTS)), probs


@jax.jit
def entropies(predictive):
    """Of the average, averaged, and the information between them, in one program."""
    return predictive.predictive_entropy(), predictive.expected_entropy(), predictive.mutual_information()


@pytest.mark.x64
def test_entropies_of_classes():
    predictive, probs = of_classes()
    total = entropy(np.einsum("s,sbc->bc", WEIGHTS, probs))
    inside = WEIGHTS @ entropy(probs)
    for found, expected in zip(entropies(predictive), (total, inside, total - inside), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)  # float64 rounding of a difference


@pytest.mark.x64
def test_entropies_of_yes_or_no():
    logits = 2 * np.random.default_rng(1).normal(size=(3, 5))
    yes = 1 / (1 + np.exp(-logits))
    both = np.stack([1 - yes, yes], axis=-1)
    predictive = Predictive(jnp.asarray(logits), likelihoods.bernoulli(), jnp.log(WEIGHTS))
    total, inside = entropy(np.einsum("s,sbc->bc", WEIGHTS, both)), WEIGHTS @ entropy(both)
    for found, expected in zip(entropies(predictive), (total, inside, total - inside), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)  # float64 rounding of a difference


def test_samples_that_agree_know_all_they_can():
    # Three equal samples with weights that do not sum to 1 exactly; numbers of any size.
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4)) * np.array([1, 1, 10, 10, 100, 1000])[:, None])
    equal = Predictive(jnp.stack([logits] * 3), likelihoods.categorical(), jnp.log(jnp.full(3, 1 / 3)))
    information = np.asarray(entropies(equal)[2])
    assert np.all(information >= 0)
    # q differs from p by some float32 eps; the divergence by its square.
    np.testing.assert_array_less(information, (50 * np.finfo(np.float32).eps) ** 2 + 1e-37)
    alone = Predictive(logits[None], likelihoods.categorical(), jnp.zeros(1))
    total, inside, information = entropies(alone)
    np.testing.assert_array_equal(information, 0)
    np.testing.assert_array_equal(total, inside)


def test_information_of_samples_that_nearly_agree():
    # p(1) = 1/2 +- d: the information is 2 d^2 to first order, 2e-8, below float32's rounding of the entropies.
    d = 1e-4
    logits = jnp.array([[np.log((0.5 + d) / (0.5 - d))], [-np.log((0.5 + d) / (0.5 - d))]])
    predictive = Predictive(logits, likelihoods.bernoulli(), jnp.log(jnp.array([0.5, 0.5])))
    np.testing.assert_allclose(entropies(predictive)[2], 2 * d**2, rtol=2e-3)  # float32 of 1/2 +- d: eps / d


def test_probabilities_of_zero():
    sure = from_probabilities(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    total, _, information = entropies(sure)
    np.testing.assert_allclose(total, [0.0, np.log(2)], rtol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(information, [0.0, 0.0])
    # Two samples, each certain of another class: nothing but epistemic.
    halves = jnp.log(jnp.array([0.5, 0.5]))
    opposed = Predictive(jnp.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]), sure.likelihood, halves)
    # The same with logits, of which one overflows the exponential, and with a sample of no weight.
    logits = jnp.array([[[2e4, 0.0]], [[0.0, 2e4]], [[0.0, 0.0]]])
    extreme = Predictive(logits, likelihoods.categorical(), jnp.log(jnp.array([0.5, 0.5, 0.0])))
    for predictive in (opposed, extreme):
        for found, expected in zip(entropies(predictive), (np.log(2), 0, np.log(2)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradients_are_finite_where_a_probability_is_zero():
    def total(probs):
        given = Predictive(probs, from_probabilities(np.eye(2)).likelihood, jnp.log(jnp.array([0.5, 0.5])))
        return jnp.sum(given.predictive_entropy() + given.expected_entropy() + given.mutual_information())

    gradient = jax.jit(jax.grad(total))(jnp.array([[[1.0, 0.0], [0.3, 0.7]], [[1.0, 0.0], [0.0, 1.0]]]))
    assert np.all(np.isfinite(gradient))


def test_under_jit_and_vmap():
    predictive, _ = of_classes()

    def information(scale):
        return Predictive(
            scale * predictive.outputs, predictive.likelihood, predictive.log_weights
        ).mutual_information()

    together = jax.jit(jax.vmap(information))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(together[1], entropies(predictive)[2], rtol=1e-4)  # float32 rounding


@pytest.mark.x64
def test_variance_is_that_of_the_noise_and_of_the_means():
    rng = np.random.default_rng(3)
    location, scale = rng.normal(size=(3, 5, 2)), rng.uniform(0.3, 1.5, size=(3, 5, 2))
    predictive = Predictive((jnp.asarray(location), jnp.log(scale)), likelihoods.normal(), jnp.log(WEIGHTS))
    noise = np.einsum("s,sbc->bc", WEIGHTS, scale**2)
    mean = np.einsum("s,sbc->bc", WEIGHTS, location)
    spread = np.einsum("s,sbc->bc", WEIGHTS, (location - mean) ** 2)
    np.testing.assert_allclose(predictive.expected_variance(), noise, rtol=1e-12)
    np.testing.assert_allclose(predictive.function_variance(), spread, rtol=1e-12)
    np.testing.assert_allclose(predictive.variance, noise + spread, rtol=1e-12)


@pytest.mark.x64
def test_joint_density_of_all_examples():
    predictive, probs = of_classes()
    labels = np.array([0, 3, 1, 1, 2, 0])
    product = np.prod(probs[:, np.arange(6), labels], axis=1)
    np.testing.assert_allclose(predictive.joint_log_prob(labels), np.log(WEIGHTS @ product), rtol=1e-12)
    assert abs(predictive.joint_log_prob(labels) - predictive.log_prob(labels).sum()) > 0.1


def test_what_does_not_apply_says_so():
    normal = Predictive(jnp.zeros((2, 3)), likelihoods.normal(1.0), jnp.log(jnp.array([0.5, 0.5])))
    for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
        with pytest.raises(TypeError, match=r"entropies are those of classes.*Normal.*expected_variance \(aleatoric\)"):
            getattr(normal, name)()
    with pytest.raises(TypeError, match="class labels have no mean or variance"):
        of_classes()[0].expected_variance()
    with pytest.raises(ValueError, match=r"targets have shape \(2,\), but the likelihood is over \(3,\)"):
        normal.joint_log_prob(jnp.zeros(2))
