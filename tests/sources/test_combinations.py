"""Priors from several sources: by enumeration, and against dense algebra in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import gaussians, sources

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _tree(scale: float = 1.0, lead: tuple[int, ...] = ()) -> dict:
    return {
        "a": jnp.asarray(scale * RNG.normal(size=(*lead, 2, 2))),
        "b": jnp.asarray(scale * RNG.normal(size=(*lead, 3))),
    }


def _flat(tree) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def _covariance(gaussian: gaussians.Gaussian) -> np.ndarray:
    _, unravel = ravel_pytree(gaussian.mean)
    return np.stack([_flat(gaussian.covariance_mv(unravel(jnp.asarray(row)))) for row in np.eye(7)])


def _variances(size: float = 1.0) -> dict:
    return jax.tree.map(lambda x: size * jnp.exp(x), _tree())


def _sources() -> list[gaussians.Gaussian]:
    return [
        gaussians.diagonal(_tree(), _variances()),
        gaussians.low_rank(_tree(), _variances(0.1), _tree(2.0, (2,))),
        gaussians.low_rank(_tree(), _variances(0.3), _tree(1.0, (3,))),
    ]


def _dense_product(parts: list[gaussians.Gaussian], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    precisions = [w * np.linalg.inv(_covariance(p)) for w, p in zip(weights, parts, strict=True)]
    covariance = np.linalg.inv(sum(precisions))
    return covariance @ sum(p @ _flat(g.mean) for p, g in zip(precisions, parts, strict=True)), covariance


# ---------------------------------------------------------------- product


def _check_product(parts: list[gaussians.Gaussian], weights: list[float] | None, structure: type):
    result = sources.product(parts, weights)
    mean, covariance = _dense_product(parts, np.ones(len(parts)) if weights is None else np.asarray(weights))
    assert type(result) is structure
    np.testing.assert_allclose(_flat(result.mean), mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(_covariance(result), covariance, rtol=1e-8, atol=1e-9)


@pytest.mark.x64
def test_products_against_dense_algebra():
    _, second, third = _sources()
    _check_product([second, third], [0.3, 0.7], gaussians.LowRank)


@pytest.mark.slow
@pytest.mark.x64
def test_products_of_other_structures_against_dense_algebra():
    diagonal, second, third = _sources()
    head = gaussians.dense({"b": jnp.zeros(3)}, jnp.asarray(np.diag([1.0, 2.0, 3.0]) + 0.5))
    _check_product([diagonal, diagonal], None, gaussians.Diagonal)
    _check_product([diagonal, second], None, gaussians.LowRank)
    _check_product([second, second], [0.5, 0.5], gaussians.LowRank)  # collinear columns: the source itself
    _check_product([third, third, third], None, gaussians.Dense)  # more columns than parameters
    blocks = gaussians.by_path({"b": head, "a": second}, like=second.mean)
    _check_product([blocks, diagonal], None, gaussians.Blocks)
    _check_product([second], None, gaussians.LowRank)


def test_products_of_sharp_sources_in_float32():
    """Columns of 1e8 times the base, in directions that both share: variances there are half of each, to 1e-3."""
    factor = {"w": jnp.asarray([[1.0, 1.0, 0.0, 0.0]])}
    source = gaussians.low_rank({"w": jnp.zeros(4)}, 1e-8, factor)
    both = sources.product([source, source])
    v = {"w": jnp.asarray([1.0, 1.0, 0.0, 0.0])}
    assert float(both.covariance_mv(v)["w"][0]) == pytest.approx(float(source.covariance_mv(v)["w"][0]) / 2, rel=1e-3)
    assert float(both.variance["w"][3]) == pytest.approx(5e-9, rel=1e-5)


# ---------------------------------------------------------------- mixture


@pytest.mark.x64
def test_responsibilities_by_enumeration():
    parts, weights = _sources(), np.array([0.2, 0.5, 0.3])
    prior = sources.mixture(parts, 10 * weights)
    for params in (_tree(), parts[1].mean):
        logs = [
            np.log(w) + scipy.stats.multivariate_normal.logpdf(_flat(params), _flat(p.mean), _covariance(p))
            for w, p in zip(weights, parts, strict=True)
        ]
        total = scipy.special.logsumexp(logs)
        assert float(prior.log_prob(params)) == pytest.approx(total, abs=1e-9)
        np.testing.assert_allclose(prior.responsibilities(params), np.exp(logs - total), atol=1e-12)
    mean = sum(w * _flat(p.mean) for w, p in zip(weights, parts, strict=True))
    second = sum(w * (np.diag(_covariance(p)) + _flat(p.mean) ** 2) for w, p in zip(weights, parts, strict=True))
    np.testing.assert_allclose(_flat(prior.mean), mean, rtol=1e-12)
    np.testing.assert_allclose(_flat(prior.variance), second - mean**2, rtol=1e-10)
    draws = prior.sample(KEY, 20_000)
    errors = np.sqrt((second - mean**2) / 20_000)
    assert np.all(np.abs(np.mean(np.asarray(draws["b"]), axis=0) - mean[4:]) < 5 * errors[4:])


def test_a_mixture_is_a_prior_for_map_and_vi():
    """Two sources, data that agree with the second: its mode is that of the second alone, and all weight is there."""
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    parts = [gaussians.isotropic({"w": jnp.full(2, m)}, scale=0.3) for m in (-2.0, 2.0)]
    prior = sources.mixture(parts)
    assert isinstance(prior, btl.Prior)
    inputs = jnp.asarray(RNG.normal(size=(10, 2)), jnp.float32)
    train = btl.data.arrays(inputs, inputs @ jnp.array([1.8, 2.3]))
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=10)
    options = {"steps": 300, "batch_size": 10, "progress": False}
    fitted = btl.fit(KEY, btl.infer.map_estimate(joint, optax.adam(0.05)), net.params, train, **options)
    gram, moment = np.asarray(inputs.T @ inputs), np.asarray(inputs.T @ (inputs @ jnp.array([1.8, 2.3])))
    precision = gram + np.eye(2) / 0.09
    expected = np.linalg.solve(precision, moment + np.full(2, 2.0) / 0.09)
    np.testing.assert_allclose(fitted.params["w"], expected, atol=2e-3)
    np.testing.assert_allclose(prior.responsibilities(fitted.params), [0, 1], atol=1e-6)
    variational = btl.infer.mean_field_vi(joint, optax.adam(0.02), num_samples=8)
    posterior = btl.fit(KEY, variational, fitted.params, train, **options).posterior
    # Noise of the last steps of Adam at a rate of 0.02.
    np.testing.assert_allclose(posterior.mean["w"], expected, atol=0.1)


# ---------------------------------------------------------------- Student-t


@pytest.mark.x64
def test_student_t_against_scipy():
    diagonal, correlated, _ = _sources()
    params = _tree(3.0)
    each = sources.student_t(diagonal, 3.0)
    scales = np.sqrt(np.diag(_covariance(diagonal)))
    expected = scipy.stats.t.logpdf(_flat(params), 3.0, _flat(diagonal.mean), scales).sum()
    assert float(each.log_prob(params)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(_flat(each.variance), 3 * scales**2, rtol=1e-12)

    groups = sources.student_t(correlated, 4.0, groups=["a", "b"])
    covariance, mean, flat = _covariance(correlated), _flat(correlated.mean), _flat(params)
    expected = sum(
        scipy.stats.multivariate_t.logpdf(flat[rows], mean[rows], covariance[rows, rows], 4.0)
        for rows in (slice(0, 4), slice(4, 7))
    )
    assert float(groups.log_prob(params)) == pytest.approx(expected, rel=1e-10)
    one = sources.student_t(correlated, 1e9, groups=["**"])
    assert float(one.log_prob(params)) == pytest.approx(float(correlated.log_prob(params)), rel=1e-5)


def test_draws_of_student_t_have_its_quantiles():
    part = gaussians.isotropic({"w": jnp.ones(1)}, scale=2.0)
    for prior in (sources.student_t(part, 1.0), sources.student_t(part, 1.0, groups=["w"])):
        draws = np.asarray(prior.sample(KEY, 20_000)["w"]).ravel()
        # Of the distribution function at the quartiles, 4 standard errors of 20,000 draws.
        shares = [np.mean(draws < q) for q in scipy.stats.cauchy.ppf([0.25, 0.5, 0.75], 1.0, 2.0)]
        np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=4 * np.sqrt(0.25 / 20_000))


# ---------------------------------------------------------------- checkpoints and parts


@pytest.mark.x64
def test_checkpoints_keep_the_variance_of_each_array():
    checkpoints = [_tree() for _ in range(4)]
    rows = np.stack([_flat(c) for c in checkpoints])
    sample = np.cov(rows.T)
    for share in (0.0, 0.5, 0.9):
        prior = sources.from_checkpoints(checkpoints, low_rank_share=share)
        np.testing.assert_allclose(_flat(prior.mean), rows.mean(axis=0), rtol=1e-12)
        pooled = np.concatenate([np.full(4, np.trace(sample[:4, :4]) / 4), np.full(3, np.trace(sample[4:, 4:]) / 3)])
        np.testing.assert_allclose(_covariance(prior), (1 - share) * np.diag(pooled) + share * sample, atol=1e-10)
    wider = sources.from_checkpoints(checkpoints, covariance_scale=2.0, eps=0.1)
    np.testing.assert_allclose(_covariance(wider), np.diag(pooled) + sample + 0.1 * np.eye(7), atol=1e-10)


@pytest.mark.x64
def test_a_part_of_a_network_keeps_its_correlations():
    source = _sources()[1]
    target = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3), "c": jnp.zeros(2)}
    prior = sources.extend(source, target, scale=0.5)
    assert prior.mean["c"].tolist() == [0, 0]
    np.testing.assert_allclose(prior.variance["c"], 0.25)
    moved = {**_tree(), "c": jnp.zeros(2)}
    expected = float(source.log_prob({k: moved[k] for k in ("a", "b")})) - np.log(2 * np.pi * 0.25)
    assert float(prior.log_prob(moved)) == pytest.approx(expected, rel=1e-12)
    replaced = sources.extend(source, {**target, "b": jnp.zeros(5)}, scale=0.5, new=["b"])
    np.testing.assert_allclose(replaced.variance["b"], np.full(5, 0.25))
    np.testing.assert_allclose(replaced.variance["a"], source.variance["a"])
    assert sources.extend(source, source.mean, scale=1.0).mean["b"].shape == (3,)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a, b: sources.product([]), ValueError, "product needs at least one source"),
        (lambda a, b: sources.product([a, 1]), TypeError, r"sources\[1\] is 1; give a Gaussian"),
        (lambda a, b: sources.product([a, b]), ValueError, r"source 1 and source 0 differ.*sources\.extend"),
        (lambda a, b: sources.product([a, a], [1.0]), ValueError, r"weights has shape \(1,\)"),
        (lambda a, b: sources.mixture([a, a], [1.0, 0.0]), ValueError, "leave out a source of weight 0"),
        (lambda a, b: sources.student_t(a, 0.0), ValueError, "degrees is 0.0"),
        (lambda a, b: sources.student_t(a, 2.0, groups=["w", "*"]), ValueError, "'w' and '\\*' both claim 'w'"),
        (lambda a, b: sources.student_t(b, 2.0, groups=["w"]), ValueError, "no group claims 'v'"),
        (lambda a, b: sources.student_t(gaussians.dense(a.mean, jnp.eye(2)), 2.0), ValueError, "correlated"),
        (lambda a, b: sources.from_checkpoints([a.mean]), ValueError, "1 checkpoint"),
        (lambda a, b: sources.from_checkpoints([a.mean, b.mean]), ValueError, r"checkpoints\[1\]"),
        (lambda a, b: sources.from_checkpoints([a.mean, a.mean]), ValueError, "<= 0"),
        (lambda a, b: sources.extend(a, {"x": jnp.zeros(1)}, scale=1.0), ValueError, "share no parameter"),
        (lambda a, b: sources.extend(a, {"w": jnp.zeros(3)}, scale=1.0), ValueError, r"new=\['w'\]"),
        (lambda a, b: sources.extend(a, a.mean, scale=1.0, new=["head"]), ValueError, "'head' matches no parameter"),
    ],
)
def test_bad_input(call, error, message):
    a = gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
    b = gaussians.isotropic({"w": jnp.zeros(2), "v": jnp.zeros(1)}, scale=1.0)
    with pytest.raises(error, match=message):
        call(a, b)
