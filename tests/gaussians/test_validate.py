"""Bad input fails where it is given, with the path, what came, what was wanted and what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import gaussians

PARAMS = {"body": {"kernel": jnp.ones((2, 3))}, "head": jnp.zeros(4)}
FACTOR = jax.tree.map(lambda x: jnp.stack([x, x + 1]), PARAMS)


def _with(path: str, leaf, tree=PARAMS) -> dict:
    """The parameters with another leaf at ``"head"`` or ``"kernel"``."""
    return {**tree, "head": leaf} if path == "head" else {**tree, "body": {"kernel": leaf}}


MEANS = [
    (_with("kernel", jnp.array([[1.0, jnp.nan, jnp.inf]])), ValueError, "mean at 'body/kernel' has 2 non-finite of 3"),
    (_with("head", jnp.arange(4)), TypeError, "mean at 'head' has dtype int32; parameters must be floating point"),
    (_with("head", jnp.ones(4, complex)), TypeError, "mean at 'head' has dtype complex64"),
    ({}, ValueError, "mean holds no parameters; give a pytree with at least one array"),
    ({"a": None}, ValueError, "mean holds no parameters"),
]


@pytest.mark.parametrize(("mean", "error", "message"), MEANS)
@pytest.mark.parametrize(
    "build",
    [
        lambda mean: gaussians.isotropic(mean, 1.0),
        lambda mean: gaussians.diagonal(mean, 1.0),
        lambda mean: gaussians.low_rank(mean, 1.0, FACTOR),
        lambda mean: gaussians.dense(mean, jnp.eye(10)),
    ],
)
def test_means(build, mean, error, message):
    with pytest.raises(error, match=message):
        build(mean)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, r"scale has 1 of 1 values <= 0 \(smallest 0\); scale must be positive"),
        (-1.0, r"scale has 1 of 1 values <= 0 \(smallest -1\)"),
        (np.nan, "scale has 1 non-finite of 1 values"),
        (np.inf, "scale has 1 non-finite of 1 values"),
        (1e-30, "scale squared at 'body/kernel' has 1 of 1 values <= 0 .*take a scale nearer to 1"),
        (1e30, "scale squared at 'body/kernel' has 1 non-finite"),
        (jnp.ones(4), r"scale has shape \(4,\); give a scalar, or one number per leaf"),
        (_with("head", -1.0), r"scale .*differ at 'body/kernel': \(2, 3\) against \(\)"),
        ({"body": {"kernel": 1.0}, "head": -1.0}, "scale at 'head' has 1 of 1 values <= 0"),
        ({"body": {"kernel": 1.0}}, "'head' of shape .* is in the leaves of mean and not in scale"),
    ],
)
def test_scales(scale, message):
    with pytest.raises(ValueError, match=message):
        gaussians.isotropic(PARAMS, scale)


@pytest.mark.parametrize(
    ("variances", "message"),
    [
        (
            _with("head", jnp.array([1.0, 0.0, -2.0, 1.0])),
            r"diagonal at 'head' has 2 of 4 values <= 0 \(smallest -2\); .*floor",
        ),
        (_with("head", jnp.array([1.0, jnp.nan, 1.0, 1.0])), "diagonal at 'head' has 1 non-finite of 4 values"),
        (0.0, "diagonal at 'body/kernel' has 1 of 1 values <= 0"),
        (
            _with("head", jnp.ones(5)),
            r"diagonal and mean differ at 'head': \(5,\) against \(4,\), to which it does not broadcast; .*one per row",
        ),
        ({"body": PARAMS["body"]}, r"'head' of shape \(4,\) is in mean and not in diagonal, which has 'body/kernel'"),
        ({**PARAMS, "neck": 1.0}, r"'neck' of shape \(\) is in diagonal and not in mean"),
        ({"body": [PARAMS["body"]["kernel"]], "head": 1.0}, "is in mean and not in diagonal"),
        (jnp.ones(4), "is in mean and not in diagonal"),
    ],
)
@pytest.mark.parametrize("build", [gaussians.diagonal, lambda mean, a: gaussians.low_rank(mean, a, FACTOR)])
def test_variances(build, variances, message):
    with pytest.raises(ValueError, match=message):
        build(_with("kernel", jnp.ones((2, 3))), variances)


def test_same_paths_in_other_containers():
    with pytest.raises(ValueError, match="diagonal and mean hold the same paths in different containers"):
        gaussians.diagonal([jnp.ones(2), jnp.ones(2)], (jnp.ones(2), jnp.ones(2)))


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (
            jax.tree.map(lambda x: jnp.zeros((0, *x.shape)), PARAMS),
            ValueError,
            "factor has rank 0; use gaussians.diagonal",
        ),
        (
            jax.tree.map(lambda x: jnp.ones((11, *x.shape)), PARAMS),
            ValueError,
            "rank 11, but there are only 10 parameters",
        ),
        (
            _with("head", jnp.ones((3, 4)), FACTOR),
            ValueError,
            r"share a leading rank axis .*'body/kernel': 2, 'head': 3",
        ),
        (_with("head", jnp.ones(()), FACTOR), ValueError, r"share a leading rank axis \(k, \*shape\).*'head': None"),
        (_with("head", jnp.ones((2, 5)), FACTOR), ValueError, r"factor .* differ at 'head': \(5,\) against \(4,\)"),
        (_with("head", jnp.full((2, 4), jnp.inf), FACTOR), ValueError, "factor at 'head' has 8 non-finite of 8 values"),
        (_with("head", jnp.ones((2, 4), int), FACTOR), TypeError, "factor at 'head' has dtype int32"),
        ({"head": FACTOR["head"]}, ValueError, "'body/kernel' of shape .* is in mean and not in factor"),
    ],
)
def test_factors(factor, error, message):
    with pytest.raises(error, match=message):
        gaussians.low_rank(PARAMS, 1.0, factor)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (jnp.eye(9), r"covariance has shape \(9, 9\); mean has 10 parameters, so \(10, 10\) is needed"),
        (jnp.ones(10), r"covariance has shape \(10,\)"),
        (jnp.eye(10).at[0, 1].set(0.5), r"not symmetric: it differs from its transpose by 0.5; pass \(C \+ C.T\) / 2"),
        (jnp.eye(10).at[3, 3].set(-2.0), "not positive definite: its smallest eigenvalue is -2; add a floor"),
        (jnp.eye(10).at[0, 0].set(jnp.nan), "covariance has 1 non-finite of 100 values"),
    ],
)
def test_covariances(covariance, message):
    with pytest.raises(ValueError, match=message):
        gaussians.dense(PARAMS, covariance)


def test_a_covariance_of_integers_is_one_of_floats():
    assert gaussians.dense(PARAMS, np.eye(10, dtype=int)).cholesky.dtype == jnp.float32


# ---------------------------------------------------------------- methods


@pytest.fixture(params=["diagonal", "low rank", "dense", "blocks"])
def gaussian(request) -> gaussians.Gaussian:
    return {
        "diagonal": lambda: gaussians.diagonal(PARAMS, 1.0),
        "low rank": lambda: gaussians.LowRank(
            gaussians.diagonal(PARAMS, 1.0), jax.tree.map(lambda x: 0 * x[None], PARAMS), jnp.zeros(1)
        ),
        "dense": lambda: gaussians.Dense(PARAMS, jnp.eye(10)),
        "blocks": lambda: gaussians.by_path(dict.fromkeys(("head", "**"), gaussians.diagonal(PARAMS, 1.0))),
    }[request.param]()


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (0.0, "c has 1 of 1 values <= 0"),
        (jnp.ones(4), r"c has shape \(4,\); give a scalar, or one number per leaf"),
        ({"body": {"kernel": 1.0}, "head": np.nan}, "c at 'head' has 1 non-finite"),
        ({"body": {"kernel": 1.0}}, "is in mean and not in c"),
        (
            {"body": {"kernel": jnp.ones(2)}, "head": 1.0},
            r"c and mean differ at 'body/kernel': \(2,\) against \(2, 3\), to which it does not broadcast",
        ),
    ],
)
def test_rescaling(gaussian, c, message):
    with pytest.raises(ValueError, match=message):
        gaussian.rescale(c)


@pytest.mark.parametrize(
    ("eps", "error", "message"),
    [
        (-1, ValueError, "eps is -1; inflate adds it to all variances, so it must be >= 0 and finite"),
        (-1e-9, ValueError, "eps is -1e-09; inflate"),
        (np.nan, ValueError, "eps is nan; inflate"),
        (np.inf, ValueError, "eps is inf; inflate"),
        (jnp.ones(4), ValueError, r"eps has shape \(4,\); inflate adds one number"),
        (1j, TypeError, "eps has dtype complex64; real numbers are needed"),
        (True, TypeError, "eps has dtype bool; real numbers are needed"),
    ],
)
def test_inflating(gaussian, eps, error, message):
    with pytest.raises(error, match=message):
        gaussian.inflate(eps)


@pytest.mark.parametrize("dtype", [bool, complex])
def test_numbers_that_are_not_real(dtype):
    """Converted in silence, a truth value would be a variance of 1 and a complex number lose a part."""
    one, name = dtype(1), jnp.result_type(dtype(1))
    head = _with("head", jnp.ones(4, dtype))
    for given, where in ((one, "diagonal"), (head, "diagonal at 'head'")):
        for build in (gaussians.diagonal, lambda mean, a: gaussians.low_rank(mean, a, FACTOR)):
            with pytest.raises(TypeError, match=f"{where} has dtype {name}; real numbers are needed"):
                build(PARAMS, given)
    with pytest.raises(TypeError, match=f"scale has dtype {name}; real numbers are needed"):
        gaussians.isotropic(PARAMS, one)
    with pytest.raises(TypeError, match=f"c has dtype {name}; real numbers are needed"):
        gaussians.isotropic(PARAMS, 1.0).rescale(one)
    with pytest.raises(TypeError, match=f"covariance has dtype {name}; real numbers are needed"):
        gaussians.dense(PARAMS, jnp.eye(10, dtype=dtype))
    with pytest.raises(TypeError, match=f"rows at 'w' has dtype {name}; real numbers are needed"):
        gaussians.kronecker({"w": jnp.ones((2, 3))}, {"w": jnp.eye(2, dtype=dtype)}, {"w": jnp.eye(3)})


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("tail/**", "pattern 'tail/\\*\\*' matches no parameter; the paths are 'body/kernel', 'head'"),
        (["head", "tail"], "pattern 'tail' matches no parameter"),
        (
            {"head": PARAMS["head"]},
            "the selection is not a part of these parameters: it must be the same tree with None",
        ),
        ({"body": {"kernel": None}, "head": None}, "the selection leaves out every parameter"),
    ],
)
def test_selections(gaussian, selection, message):
    with pytest.raises(ValueError, match=message):
        gaussian.restrict(selection)
    with pytest.raises(ValueError, match=message):
        gaussian.condition(PARAMS, selection)


def test_what_a_gaussian_says_of_itself(gaussian):
    assert "D=10" in repr(gaussian) or "D=4" in repr(gaussian)
    assert "'head'" in repr(gaussian)
