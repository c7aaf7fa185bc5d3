"""The log joint against its definition in numpy and scipy, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy import special, stats

import bayestl as btl

N, KAPPA, T, SCALE = 40, 0.7, 0.3, 0.8
MASK = np.array([1, 0, 1, 1, 0])
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(5, 2))
PARAMS = {"head": {"bias": RNG.normal(size=3), "kernel": RNG.normal(size=(2, 3))}}
MEAN = {"head": {"bias": RNG.normal(size=3), "kernel": RNG.normal(size=(2, 3))}}
OUTPUTS = INPUTS @ PARAMS["head"]["kernel"] + PARAMS["head"]["bias"]
REAL = RNG.normal(size=(5, 3))
# What is compared is a handful of float64 operations on numbers of order 1 to 100.
RTOL = 1e-12


def scores(params, inputs):
    return inputs @ params["head"]["kernel"] + params["head"]["bias"]


def first_score(params, inputs):
    return scores(params, inputs)[:, 0]


class Case(NamedTuple):
    """A likelihood on some outputs, its targets, and the log likelihoods (B,) by scipy."""

    function: Callable[[Any, Any], Any]
    likelihood: Callable[[], Any]
    targets: np.ndarray
    truth: np.ndarray


LABELS = np.array([0, 2, 1, 1, 0])
CASES = {
    "categorical": Case(
        scores, btl.likelihoods.categorical, LABELS, special.log_softmax(OUTPUTS, axis=1)[np.arange(5), LABELS]
    ),
    "bernoulli": Case(
        first_score,
        btl.likelihoods.bernoulli,
        np.array([0, 1, 1, 0, 1]),
        stats.bernoulli.logpmf([0, 1, 1, 0, 1], special.expit(OUTPUTS[:, 0])),
    ),
    "normal": Case(
        first_score,
        lambda: btl.likelihoods.normal(0.5),
        REAL[:, 0],
        stats.norm.logpdf(REAL[:, 0], OUTPUTS[:, 0], 0.5),
    ),
    "several normals": Case(
        scores, lambda: btl.likelihoods.normal(0.5), REAL, stats.norm.logpdf(REAL, OUTPUTS, 0.5).sum(axis=1)
    ),
    "function": Case(
        first_score,
        lambda: lambda outputs: dist.Laplace(outputs, 2.0),
        REAL[:, 0],
        stats.laplace.logpdf(REAL[:, 0], OUTPUTS[:, 0], 2.0),
    ),
}


def joint_of(case: Case, prior: Any = "isotropic", **changes: Any) -> btl.LogJoint:
    if prior == "isotropic":
        prior = btl.gaussians.isotropic(MEAN, SCALE)
    net = btl.nets.from_function(case.function, PARAMS)
    settings = {"num_data": N, "kappa": KAPPA, "temperature": T, **changes}
    return btl.LogJoint(net, case.likelihood(), prior, **settings)


def batch_of(case: Case, mask: Any = MASK) -> btl.Batch:
    return btl.Batch(INPUTS, case.targets, mask)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


DEVIATION = flat(PARAMS) - flat(MEAN)
ENERGY = -0.5 * np.sum(DEVIATION**2) / SCALE**2
LOG_PRIOR = stats.norm.logpdf(DEVIATION, 0, SCALE).sum()


# ---------------------------------------------------------------- values


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_joint_is_its_definition(name):
    case = CASES[name]
    joint, batch = joint_of(case), batch_of(case)
    mean = case.truth[MASK > 0].mean()
    np.testing.assert_allclose(joint(PARAMS, batch), (KAPPA * N * mean + LOG_PRIOR) / T, rtol=RTOL)
    np.testing.assert_allclose(joint(PARAMS, batch._replace(weights=MASK > 0)), joint(PARAMS, batch), rtol=RTOL)
    np.testing.assert_allclose(joint.log_likelihoods(PARAMS, batch), case.truth, rtol=RTOL)
    whole = (KAPPA * N * case.truth.mean() + LOG_PRIOR) / T
    np.testing.assert_allclose(joint(PARAMS, batch_of(case, None)), whole, rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_loss_is_its_definition(name):
    case = CASES[name]
    mean = case.truth[MASK > 0].mean()
    loss, terms = joint_of(case).loss(PARAMS, batch_of(case))
    np.testing.assert_allclose(loss, -(mean + ENERGY / (KAPPA * N)), rtol=RTOL)
    np.testing.assert_allclose(terms.nll, -mean, rtol=RTOL)
    np.testing.assert_allclose(terms.log_prior, ENERGY, rtol=RTOL)
    assert terms.state == ()
    colder, _ = joint_of(case, temperature=T / 7).loss(PARAMS, batch_of(case))
    assert colder == loss


@pytest.mark.x64
def test_learned_noise():
    net = btl.nets.with_log_scale(btl.nets.from_function(scores, PARAMS), initial_scale=0.4)
    joint = btl.LogJoint(net, btl.likelihoods.normal(), btl.gaussians.isotropic(net.params, 2.0), num_data=N)
    batch = btl.Batch(INPUTS, REAL)
    each = stats.norm.logpdf(REAL, OUTPUTS, 0.4).sum(axis=1)
    at_mean = stats.norm.logpdf(np.zeros(10), 0, 2.0).sum()
    np.testing.assert_allclose(joint(net.params, batch), N * each.mean() + at_mean, rtol=RTOL)
    # d/d log s of sum log N(y; f, s) = sum (z^2 - 1), and the prior is stationary at its mean
    z = (REAL - OUTPUTS) / 0.4
    gradient = jax.grad(joint)(net.params, batch)
    np.testing.assert_allclose(gradient["log_scale"], N / 5 * np.sum(z**2 - 1), rtol=RTOL)


@pytest.mark.x64
def test_flat_prior():
    case = CASES["categorical"]
    joint, mean = joint_of(case, None), case.truth[MASK > 0].mean()
    np.testing.assert_allclose(joint(PARAMS, batch_of(case)), KAPPA * N * mean / T, rtol=RTOL)
    loss, terms = joint.loss(PARAMS, batch_of(case))
    np.testing.assert_allclose(loss, -mean, rtol=RTOL)
    assert terms.log_prior == 0


@pytest.mark.x64
def test_no_data_is_kappa_zero():
    case = CASES["categorical"]
    joint = joint_of(case, kappa=0)
    np.testing.assert_allclose(joint(PARAMS, batch_of(case)), LOG_PRIOR / T, rtol=RTOL)
    np.testing.assert_allclose(joint.loss(PARAMS, batch_of(case))[0], -ENERGY / N, rtol=RTOL)
    gradient = jax.grad(lambda params: joint.loss(params, batch_of(case))[0])(PARAMS)
    np.testing.assert_allclose(flat(gradient), DEVIATION / SCALE**2 / N, rtol=RTOL)


@pytest.mark.x64
def test_empty_mask_leaves_the_log_prior():
    case = CASES["normal"]
    nothing = btl.Batch(np.full_like(INPUTS, np.nan), np.full(5, np.nan), np.zeros(5))
    joint = joint_of(case)
    np.testing.assert_allclose(joint(PARAMS, nothing), LOG_PRIOR / T, rtol=RTOL)
    np.testing.assert_allclose(flat(jax.grad(joint)(PARAMS, nothing)), -DEVIATION / SCALE**2 / T, rtol=RTOL)
    np.testing.assert_allclose(joint.loss(PARAMS, nothing)[0], -ENERGY / (KAPPA * N), rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize(("name", "target"), [("normal", np.nan), ("categorical", -1), ("categorical", 255)])
def test_padding_may_hold_anything(name, target):
    case, joint = CASES[name], joint_of(CASES[name])
    inputs, targets = INPUTS.copy(), case.targets.copy()
    inputs[MASK == 0], targets[MASK == 0] = np.nan, target
    padded = btl.Batch(inputs, targets, MASK)
    real = btl.Batch(INPUTS[MASK > 0], case.targets[MASK > 0])
    np.testing.assert_allclose(joint(PARAMS, padded), joint(PARAMS, real), rtol=RTOL)
    gradient = jax.grad(lambda params: joint.loss(params, padded)[0])(PARAMS)
    truth = jax.grad(lambda params: joint.loss(params, real)[0])(PARAMS)
    np.testing.assert_allclose(flat(gradient), flat(truth), rtol=1e-10, atol=1e-13)


@pytest.mark.x64
def test_joint_and_loss_are_stationary_at_the_posterior_mean():
    rng = np.random.default_rng(1)
    inputs, targets, mean = rng.normal(size=(20, 4)), rng.normal(size=20), rng.normal(size=4)
    root, kappa = rng.normal(size=(4, 4)), 3.0
    covariance = root @ root.T + np.eye(4)
    precision = kappa * inputs.T @ inputs / 0.5**2 + np.linalg.inv(covariance)
    mode = np.linalg.solve(precision, kappa * inputs.T @ targets / 0.5**2 + np.linalg.solve(covariance, mean))
    net = btl.nets.from_function(lambda params, x: x @ params, jnp.zeros(4))
    prior = btl.gaussians.dense(mean, covariance)
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), prior, num_data=20, kappa=kappa, temperature=T)
    batch = btl.Batch(inputs, targets)
    slopes = jax.jit(lambda at: (jax.grad(joint)(at, batch), jax.grad(lambda x: joint.loss(x, batch)[0])(at)))
    # Terms of the gradient of the joint are of the order of 1000, so their rounding is about 1e-12.
    np.testing.assert_allclose(slopes(mode)[0], np.zeros(4), atol=1e-10)
    np.testing.assert_allclose(slopes(mode)[1], np.zeros(4), atol=1e-12)
    # One unit away the slope is a row of the posterior precision.
    moved = mode + np.eye(4)[0]
    np.testing.assert_allclose(slopes(moved)[0], -precision[0] / T, rtol=1e-9)
    np.testing.assert_allclose(slopes(moved)[1], precision[0] / (kappa * 20), rtol=1e-9)


class StudentT:
    """A prior that is no Gaussian."""

    def log_prob(self, params):
        parts = [dist.StudentT(3.0, 0.0, 2.0).log_prob(x).sum() for x in jax.tree.leaves(params)]
        return sum(parts)


@pytest.mark.x64
def test_any_prior_with_a_log_prob():
    case = CASES["categorical"]
    joint = joint_of(case, StudentT())
    log_prior = stats.t.logpdf(flat(PARAMS), 3.0, 0.0, 2.0).sum()
    mean = case.truth[MASK > 0].mean()
    np.testing.assert_allclose(joint(PARAMS, batch_of(case)), (KAPPA * N * mean + log_prior) / T, rtol=RTOL)
    np.testing.assert_allclose(joint.loss(PARAMS, batch_of(case))[0], -mean - log_prior / (KAPPA * N), rtol=RTOL)


def test_float32_keeps_small_differences_of_the_loss():
    # The normaliser of a sharp prior, here -D log s = 2e5 nats, would drown a loss of order 1 in float32.
    net = btl.nets.from_function(lambda params, x: x @ params[:1], jnp.zeros(20_000))
    prior = btl.gaussians.isotropic(net.params, 1e-4)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=1)
    batch = btl.Batch(jnp.ones((1, 1)), jnp.ones(1))
    loss = jax.jit(lambda params: joint.loss(params, batch)[0])
    moved = np.zeros(20_000, np.float32)
    moved[1] = 1e-5
    np.testing.assert_allclose(loss(moved) - loss(net.params), 0.5 * 0.1**2, rtol=1e-4)


# ---------------------------------------------------------------- as a pytree


@pytest.mark.x64
def test_is_a_pytree_under_jit_and_vmap():
    case = CASES["categorical"]
    joint, batch = joint_of(case), batch_of(case)
    mean = case.truth[MASK > 0].mean()
    traced = jax.jit(lambda joint: joint(PARAMS, batch))(joint)
    np.testing.assert_allclose(traced, joint(PARAMS, batch), rtol=RTOL)
    function = CASES["function"]
    assert jax.jit(lambda joint: joint(PARAMS, batch_of(function)))(joint_of(function)) < 0
    kappas, sizes = np.array([0.0, 0.5, 2.0]), np.array([10.0, 20.0, 30.0])
    values = jax.jit(jax.vmap(lambda kappa, num: joint.replace(kappa=kappa, num_data=num)(PARAMS, batch)))
    np.testing.assert_allclose(values(kappas, sizes), (kappas * sizes * mean + LOG_PRIOR) / T, rtol=RTOL)
    members = jax.tree.map(lambda x: np.stack([x, x]), joint)
    both = jax.jit(jax.vmap(lambda joint: joint(PARAMS, batch)))(members)
    np.testing.assert_allclose(both, [traced, traced], rtol=RTOL)


@pytest.mark.x64
def test_gradient_with_respect_to_a_prior_scale():
    case = CASES["categorical"]

    def log_joint(log_scale):
        prior = btl.gaussians.isotropic(MEAN, jnp.exp(log_scale))
        return joint_of(case, prior)(PARAMS, batch_of(case))

    scales = np.array([0.3, 1.0, 5.0])
    found = jax.jit(jax.vmap(jax.grad(log_joint)))(np.log(scales))
    # log N(r; 0, s^2 I) falls by D and gains |r|^2 / s^2 per unit of log s
    np.testing.assert_allclose(found, (-9 + np.sum(DEVIATION**2) / scales**2) / T, rtol=1e-11)


def test_replace_exchanges_leaves():
    case = CASES["categorical"]
    joint = joint_of(case)
    flat_prior = joint.replace(prior=None, num_data=7)
    assert (flat_prior.prior, flat_prior.num_data, joint.num_data) == (None, 7, N)
    assert joint.prior is not None
    assert flat_prior.kappa is joint.kappa
    assert flat_prior.likelihood is joint.likelihood
    with pytest.raises(TypeError, match=r"replace got \['net'\]; it can exchange .*'temperature'"):
        joint.replace(net=None)


# ---------------------------------------------------------------- state and randomness of the network


def apply_noisily(params, state, inputs, key):
    noise = 0.0 if key is None else jax.random.normal(key)
    return inputs @ params + state["offset"] + noise, {"offset": state["offset"] + 1}


@pytest.mark.x64
def test_key_and_state_reach_the_network():
    net = btl.Net(jnp.ones(2), {"offset": jnp.array(2.0)}, apply_noisily)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=5)
    batch, key = btl.Batch(INPUTS, np.zeros(5)), jax.random.key(3)

    def truth(offset):
        return stats.norm.logpdf(INPUTS.sum(axis=1) + offset).mean()

    noise = float(jax.random.normal(key))
    np.testing.assert_allclose(joint(net.params, batch), 5 * truth(2.0), rtol=RTOL)
    np.testing.assert_allclose(joint(net.params, batch, key=key), 5 * truth(2.0 + noise), rtol=RTOL)
    other = {"offset": jnp.array(-1.0)}
    np.testing.assert_allclose(joint(net.params, batch, key=key, state=other), 5 * truth(-1.0 + noise), rtol=RTOL)
    loss, terms = joint.loss(net.params, batch, key=key, state=other)
    np.testing.assert_allclose(loss, -truth(-1.0 + noise), rtol=RTOL)
    assert terms.state["offset"] == 0.0
    each = joint.log_likelihoods(net.params, batch, key=key, state=other)
    np.testing.assert_allclose(each.mean(), truth(-1.0 + noise), rtol=RTOL)
    np.testing.assert_allclose(joint.outputs(net.params, INPUTS)[0], INPUTS.sum(axis=1) + 2.0, rtol=RTOL)
    np.testing.assert_allclose(joint.replace(state=other)(net.params, batch), 5 * truth(-1.0), rtol=RTOL)


# ---------------------------------------------------------------- what it refuses


def _head(classes: int) -> dict[str, Any]:
    return {"head": {"bias": jnp.zeros(classes), "kernel": jnp.zeros((2, classes))}}


def _construct(**changes: Any) -> btl.LogJoint:
    given = {"params": _head(3), "likelihood": btl.likelihoods.categorical(), "prior": None, "num_data": 5, **changes}
    net = btl.Net(given.pop("params"), (), lambda params, state, inputs, key: (scores(params, inputs), state))
    return btl.LogJoint(net, given.pop("likelihood"), given.pop("prior"), **given)


BAD_CONSTRUCTIONS = {
    "head of other shape": (
        lambda: _construct(
            prior=btl.gaussians.isotropic({"head": {**_head(3)["head"], "kernel": jnp.zeros((2, 7))}}, 1)
        ),
        ValueError,
        r"^prior and params differ at 'head/kernel': \(2, 7\) against \(2, 3\); "
        r"give the new head its own prior with gaussians.by_path$",
    ),
    "leaf without a prior": (
        lambda: _construct(prior=btl.gaussians.isotropic({"head": {"bias": jnp.zeros(3)}}, 1.0)),
        ValueError,
        r"prior and params differ: 'head/kernel' of shape \(2, 3\) is in params and not in prior.*gaussians.by_path",
    ),
    "prior with a leaf too many": (
        lambda: _construct(prior=btl.gaussians.isotropic({**_head(3), "old": jnp.zeros(4)}, 1.0)),
        ValueError,
        r"prior and params differ: 'old' of shape \(4,\) is in prior and not in params.*gaussians.by_path",
    ),
    "other path": (
        lambda: _construct(prior=btl.gaussians.isotropic({"top": _head(3)["head"]}, 1.0)),
        ValueError,
        "prior and params differ: 'head/bias' .* which has 'top/bias', 'top/kernel'",
    ),
    "prior without log_prob": (
        lambda: _construct(prior=1e-2),
        TypeError,
        "prior is a float without log_prob; give a Gaussian, or None for the flat prior",
    ),
    "likelihood that cannot be called": (
        lambda: _construct(likelihood="categorical"),
        TypeError,
        "likelihood is a str; give one of bayestl.likelihoods, or a function",
    ),
    "num_data 0": (lambda: _construct(num_data=0), ValueError, "num_data is 0; it must be the number of training"),
    "num_data -3": (lambda: _construct(num_data=-3), ValueError, "num_data is -3; it must be"),
    "num_data nan": (lambda: _construct(num_data=np.nan), ValueError, "num_data is nan; it must be"),
    "num_data array": (lambda: _construct(num_data=np.ones(2)), TypeError, "num_data is an array .*; give a number"),
    "kappa": (lambda: _construct(kappa=-0.1), ValueError, "kappa is -0.1; it must be a power of the likelihood, 0 or"),
    "temperature 0": (lambda: _construct(temperature=0.0), ValueError, "temperature is 0.0; it must be a number above"),
    "temperature -1": (
        lambda: _construct(temperature=-1),
        ValueError,
        "temperature is -1; it must be a number above 0",
    ),
    "integer parameters": (
        lambda: _construct(params={"head": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3), int)}}),
        TypeError,
        "net.params at 'head/kernel' has dtype int32; parameters must be floating point",
    ),
    "no parameters": (lambda: _construct(params={}), ValueError, "net.params holds no parameters"),
}


@pytest.mark.parametrize("name", BAD_CONSTRUCTIONS)
def test_construction_refuses(name):
    construct, error, message = BAD_CONSTRUCTIONS[name]
    with pytest.raises(error, match=message):
        construct()


CATEGORICAL = btl.likelihoods.categorical
BAD_DATA = {
    "Bernoulli on (B, 1)": (
        lambda params, x: scores(params, x)[:, :1],
        btl.likelihoods.bernoulli,
        np.array([0, 1, 1, 0, 1]),
        ValueError,
        r"outputs of shape \(5, 1\) has batch shape \(5, 1\), but must have \(5,\).*outputs\[..., 0\]",
    ),
    "label outside the classes": (
        scores,
        CATEGORICAL,
        np.array([0, 3, 1, 1, 0]),
        ValueError,
        "1 of 5 targets lie outside the support .*: they go from 0 to 3, valid is 0 to 2; number the classes from 0",
    ),
    "label below the classes": (scores, CATEGORICAL, np.array([0, -1, 1, 1, 0]), ValueError, "they go from -1 to 1"),
    "float labels": (
        scores,
        CATEGORICAL,
        np.zeros(5, np.float32),
        TypeError,
        r"targets have dtype float32.*astype\(int\)",
    ),
    "one-hot labels": (scores, CATEGORICAL, np.eye(3, dtype=int)[LABELS], ValueError, r"targets have shape \(5, 3\)"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_check_and_fit_refuse_data(name):
    function, likelihood, targets, error, message = BAD_DATA[name]
    net = btl.nets.from_function(function, PARAMS)
    joint = btl.LogJoint(net, likelihood(), None, num_data=5)
    with pytest.raises(error, match=message):
        joint.check(net.params, jnp.asarray(INPUTS), jnp.asarray(targets))
    data = btl.data.arrays(INPUTS, targets)
    inference = btl.infer.map_estimate(joint, optax.sgd(0.1))
    with pytest.raises(error, match=message):
        btl.fit(jax.random.key(0), inference, net.params, data, steps=1, progress=False)


def test_shapes_are_checked_inside_a_traced_function_too():
    net = btl.nets.from_function(lambda params, x: scores(params, x)[:, :1], PARAMS)
    joint = btl.LogJoint(net, btl.likelihoods.bernoulli(), None, num_data=5)
    with pytest.raises(ValueError, match=r"has batch shape \(5, 1\), but must have \(5,\)"):
        jax.jit(joint)(net.params, btl.Batch(jnp.asarray(INPUTS), jnp.ones(5, int)))


def test_check_refuses_parameters_that_the_prior_is_not_about():
    joint = _construct(prior=btl.gaussians.isotropic(_head(3), 1.0))
    joint.check(_head(3), jnp.ones((5, 2)), jnp.zeros(5, int))
    with pytest.raises(ValueError, match=r"prior and params differ at 'head/bias': \(3,\) against \(4,\)"):
        joint.check(_head(4), jnp.ones((5, 2)), jnp.zeros(5, int))
    with pytest.raises(TypeError, match="params at 'head/bias' has dtype int32"):
        joint.check(jax.tree.map(lambda x: x.astype(int), _head(3)), jnp.ones((5, 2)), jnp.zeros(5, int))


def test_check_leaves_out_masked_targets():
    joint = _construct()
    targets = jnp.array([0, 1, 2, 9, -1])
    joint.check(_head(3), jnp.ones((5, 2)), targets, jnp.array([1, 1, 1, 0, 0]))
    with pytest.raises(ValueError, match="1 of 4 targets lie outside"):
        joint.check(_head(3), jnp.ones((5, 2)), targets, jnp.array([1, 1, 1, 1, 0]))
