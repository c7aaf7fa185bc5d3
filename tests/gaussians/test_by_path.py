"""One prior from several: who claims what, heads of another shape, other containers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import bayestl as btl
from bayestl import gaussians


def _source() -> dict:
    """The source's parameters, with a head for ten classes."""
    rng = np.random.default_rng(0)
    return {
        "body": {"bias": rng.normal(size=3), "kernel": rng.normal(size=(2, 3))},
        "head": {"bias": rng.normal(size=10), "kernel": rng.normal(size=(3, 10))},
    }


def _target() -> dict:
    """The target's, with a head for four."""
    return {
        "body": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))},
        "head": {"bias": jnp.zeros(4), "kernel": jnp.zeros((3, 4))},
    }


_build = jax.jit(gaussians.low_rank)


def _low_rank(mean: dict) -> tuple[gaussians.LowRank, np.ndarray]:
    """A low-rank Gaussian, and the covariance of what lies under its ``body``, by dense algebra."""
    rng = np.random.default_rng(1)
    factor = jax.tree.map(lambda x: rng.normal(size=(2, *x.shape)), mean)
    rows = np.concatenate([f.reshape(2, -1) for f in jax.tree.leaves(factor["body"])], axis=1)
    return _build(mean, 0.5, factor), 0.5 * np.eye(rows.shape[1]) + rows.T @ rows


def _log_density(x: np.ndarray, cov: np.ndarray) -> float:
    return -0.5 * (len(x) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + x @ np.linalg.solve(cov, x))


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_a_block_is_the_marginal_of_what_its_pattern_claims():
    """A correlated source over body and head, of which only the body is taken."""
    mean = jax.tree.map(jnp.asarray, _source())
    source, cov = _low_rank(mean)
    prior = gaussians.by_path({"head/**": gaussians.isotropic(mean, 2.0), "**": source})
    point = jax.tree.map(lambda m: m + 0.3, mean)
    truth = _log_density(np.full(9, 0.3), cov) + _log_density(np.full(40, 0.3), 4 * np.eye(40))
    # float32, D = 49
    np.testing.assert_allclose(prior.log_prob(point), truth, rtol=1e-5)
    np.testing.assert_array_equal(_flat(prior.mean), _flat(mean))


@pytest.mark.parametrize("order", [1, -1])
def test_an_old_head_of_another_shape_under_the_same_path(order):
    """The source's own head is left out, whichever of the two comes first."""
    source, _ = _low_rank(_source())
    priors = {"head/**": gaussians.isotropic(_target(), 1.0), "**": source}
    prior = gaussians.by_path(dict(list(priors.items())[::order]))
    assert jax.tree.map(jnp.shape, prior.mean) == jax.tree.map(jnp.shape, _target())
    np.testing.assert_array_equal(prior.mean["body"]["bias"], source.mean["body"]["bias"])
    np.testing.assert_array_equal(prior.mean["head"]["bias"], np.zeros(4))


def test_an_old_head_under_another_name():
    """Leaves that the target lacks are marginalised out once ``like`` says which those are."""
    old = {"body": _source()["body"], "classifier": _source()["head"]}
    source, cov = _low_rank(old)
    priors = {"head/**": gaussians.isotropic({"head": _target()["head"]}, 1.0), "**": source}
    with pytest.raises(ValueError, match=r"no Gaussian here covers exactly these paths; pass like=target\.params"):
        gaussians.by_path(priors)
    prior = gaussians.by_path(priors, like=_target())
    assert jax.tree.structure(prior.mean) == jax.tree.structure(_target())
    point = {"body": jax.tree.map(lambda x: x + 0.3, source.mean["body"]), "head": _target()["head"]}
    truth = _log_density(np.full(9, 0.3), cov) - 16 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior.log_prob(point), truth, rtol=1e-5)


def test_a_source_that_was_restricted_before():
    source, cov = _low_rank(_source())
    body = source.restrict("body/**")
    prior = gaussians.by_path({"head/**": gaussians.isotropic(_target(), 1.0), "**": body}, like=_target())
    point = {"body": jax.tree.map(lambda x: x + 0.3, source.mean["body"]), "head": _target()["head"]}
    truth = _log_density(np.full(9, 0.3), cov) - 16 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior.log_prob(point), truth, rtol=1e-5)


def test_other_containers():
    """A source kept as nnx.State, a target kept as nested dicts, and a dense block whose leaves change their order."""
    state = nnx.State({"layers": {i: {"w": nnx.Param(jnp.full((i + 1,), float(i)))} for i in range(3)}})
    root = np.random.default_rng(2).normal(size=(6, 6))
    cov = root @ root.T + np.eye(6)
    source = gaussians.dense(state, cov)
    # As text, "10" would sort before "2"; as attributes of a list there is no sorting at all.
    like = {"layers": [{"w": jnp.zeros(i + 1)} for i in range(3)]}
    prior = gaussians.by_path({"**": source}, like=like)
    assert isinstance(prior.mean["layers"], list)
    point = jax.tree.map(lambda m: m + 0.5, prior.mean)
    np.testing.assert_allclose(prior.log_prob(point), _log_density(np.full(6, 0.5), cov), rtol=1e-5)
    with pytest.raises(ValueError, match=r"in different containers: .*pass like=target\.params"):
        gaussians.by_path({"layers/0/**": gaussians.isotropic(like, 1.0), "layers/1/**": source, "layers/2/**": source})


@pytest.mark.x64
def test_a_dense_block_follows_the_order_of_the_target():
    root = np.random.default_rng(3).normal(size=(3, 3))
    cov = root @ root.T + np.eye(3)
    numbered = {str(i): jnp.zeros(()) for i in (1, 2, 10)}  # sorted as text: 1, 10, 2
    g = gaussians.by_path({"**": gaussians.dense(numbered, cov)}, like={i: jnp.zeros(()) for i in (1, 2, 10)})
    order = [0, 2, 1]
    point = {1: jnp.array(0.1), 2: jnp.array(0.2), 10: jnp.array(0.3)}
    truth = _log_density(np.array([0.1, 0.2, 0.3]), cov[np.ix_(order, order)])
    np.testing.assert_allclose(g.log_prob(point), truth, rtol=1e-12)


def test_double_star_is_everything_not_named():
    """Also where a pattern with ``**`` inside claims part of it."""
    params = _target()
    named = gaussians.isotropic(params, 3.0)
    prior = gaussians.by_path({"**/bias": named, "**": gaussians.isotropic(params, 0.5)})
    scales = {path: float(leaf.ravel()[0]) for path, leaf in btl.tree.by_paths(prior.variance).items()}
    assert scales == {"body/bias": 9.0, "body/kernel": 0.25, "head/bias": 9.0, "head/kernel": 0.25}


def test_blocks_within_blocks():
    params = _target()
    inner = gaussians.by_path({"**/bias": gaussians.isotropic(params, 3.0), "**": gaussians.isotropic(params, 0.5)})
    prior = gaussians.by_path({"head/**": gaussians.isotropic(params, 7.0), "**": inner})
    scales = {path: float(leaf.ravel()[0]) for path, leaf in btl.tree.by_paths(prior.variance).items()}
    assert scales == {"body/bias": 9.0, "body/kernel": 0.25, "head/bias": 49.0, "head/kernel": 49.0}


def test_conditioning_on_whole_blocks():
    """A block of which everything is kept, next to one of which nothing is."""
    source, cov = _low_rank(_source())
    prior = gaussians.by_path({"head/**": gaussians.isotropic(_source(), 1.0), "**": source})
    part = prior.condition(_source(), "body/**")
    assert btl.tree.paths(part.mean) == ["body/bias", "body/kernel"]
    # Independent of the head, so that what is given changes nothing.
    np.testing.assert_allclose(_flat(part.variance), np.diag(cov), rtol=1e-5)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        ([], ValueError, "by_path needs at least one pattern"),
        (
            ["tail/**", "**"],
            ValueError,
            "pattern 'tail/\\*\\*' matches no parameter of its Gaussian; the paths are 'body/bias'",
        ),
        (["head/*", "**/bias"], ValueError, "'head/\\*' and '\\*\\*/bias' both claim 'head/bias'; make them disjoint"),
        (["**", "*/*"], ValueError, "pattern '\\*\\*' matches no parameter"),
    ],
)
def test_patterns_that_do_not_fit(patterns, error, message):
    prior = gaussians.isotropic(_target(), 1.0)
    with pytest.raises(error, match=message):
        gaussians.by_path(dict.fromkeys(patterns, prior))


def test_a_parameter_that_nobody_claims():
    body = gaussians.isotropic({"body": _target()["body"]}, 1.0)
    with pytest.raises(ValueError, match=r"no pattern claims 'head/bias', 'head/kernel'; add '\*\*'"):
        gaussians.by_path({"**": body}, like=_target())


def test_a_pattern_without_a_place_in_like():
    with pytest.raises(ValueError, match="pattern 'tail' matches no parameter of its Gaussian that is also in like"):
        gaussians.by_path(
            {"tail": gaussians.isotropic({"tail": jnp.ones(2)}, 1.0), "**": gaussians.isotropic(_target(), 1.0)},
            like=_target(),
        )


def test_a_block_of_another_shape_than_like():
    source = gaussians.isotropic(_source(), 1.0)
    message = r"the blocks and like differ at 'head/bias': \(10,\) against \(4,\); give every new leaf its own pattern"
    with pytest.raises(ValueError, match=message):
        gaussians.by_path({"**": source}, like=_target())


def test_something_other_than_a_gaussian():
    with pytest.raises(TypeError, match=r"by_path: priors\['\*\*'\] is a dict; give a Gaussian"):
        gaussians.by_path({"**": _target()})
