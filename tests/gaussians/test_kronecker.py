"""Layers with their biases, in groups, and with scales per row, against dense float64 algebra; what is refused."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import bayestl as btl
from bayestl import gaussians

# A kernel of 2 x 1 places and 2 channels in 2 groups of 3 outputs: 2 matrices of 4 inputs, and the row of the bias.
KERNEL = (2, 1, 2, 6)
STEPS = (("reshape", (4, 2, 3)), ("transpose", (1, 0, 2)))
GROUPS, ROWS, COLUMNS = 2, 5, 3
RTOL = 1e-10  # condition numbers are below 1e3


class Ingredients(NamedTuple):
    scale: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    spectrum: np.ndarray


def _rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.stack([np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(GROUPS)])


def _draw(seed: int, one_scale: bool = False) -> tuple[Any, Any, Ingredients]:
    rng = np.random.default_rng(seed)
    mean, params = ({"a": {"bias": rng.normal(size=6), "kernel": rng.normal(size=KERNEL)}} for _ in range(2))
    scale = np.exp(rng.normal()) if one_scale else np.exp(0.5 * rng.normal(size=ROWS))
    spectrum = np.exp(rng.normal(size=(GROUPS, ROWS, COLUMNS)))
    return mean, params, Ingredients(scale, _rotation(rng, ROWS), _rotation(rng, COLUMNS), spectrum)


def test_a_rearrangement_that_reverses():
    x = np.arange(12).reshape(2, 3, 2)
    steps = (("reverse", (0, 2)), ("transpose", (1, 0, 2)), ("reshape", (3, 4)))
    rearrangement = gaussians.Rearrangement(x.shape, steps)
    np.testing.assert_array_equal(rearrangement(x), np.flip(x, (0, 2)).swapaxes(0, 1).reshape(3, 4))
    np.testing.assert_array_equal(rearrangement.back(rearrangement(jnp.asarray(x))), x)
    assert rearrangement.result == (3, 4)
    for axes in ((3,), (0, 0)):
        with pytest.raises(ValueError, match="has no reverse to"):
            _ = gaussians.Rearrangement(x.shape, (("reverse", axes),)).result


def _build(mean: Any, x: Ingredients) -> gaussians.Kronecker:
    mean, x = jax.tree.map(jnp.asarray, (mean, x))
    layout = gaussians.MatrixLayout("a/kernel", gaussians.Rearrangement(KERNEL, STEPS), "a/bias")
    return gaussians.Kronecker(mean, x.scale, x.inputs, x.outputs, x.spectrum, layout)


def _order() -> np.ndarray:
    """For every entry of the matrices (g, I, O) its place among the parameters: the bias comes first."""
    kernel = 6 + np.arange(np.prod(KERNEL)).reshape(KERNEL)
    found = np.zeros((GROUPS, ROWS, COLUMNS), int)
    for group in range(GROUPS):
        for place in range(2):
            for channel in range(2):
                found[group, 2 * place + channel] = kernel[place, 0, channel, 3 * group : 3 * group + 3]
        found[group, -1] = 3 * group + np.arange(3)
    return found.ravel()


def _covariance(x: Ingredients) -> np.ndarray:
    result = np.zeros((30, 30))
    for group in range(GROUPS):
        root = np.kron(np.diag(x.scale * np.ones(ROWS)) @ x.inputs[group], x.outputs[group])
        rows = slice(group * 15, group * 15 + 15)
        result[rows, rows] = root * x.spectrum[group].ravel() @ root.T
    place = np.argsort(_order())
    return result[np.ix_(place, place)]


def _flat(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def _matrix(mv: Any, like: Any) -> jax.Array:
    unflat = jax.flatten_util.ravel_pytree(like)[1]
    size = btl.tree.size(like)
    return jax.vmap(lambda e: _flat(mv(unflat(e))))(jnp.eye(size)).T


def _answers(g: Any, params: Any) -> dict[str, jax.Array]:
    return {
        "mean": _flat(g.mean),
        "log_prob": g.log_prob(params),
        "covariance": _matrix(g.covariance_mv, g.mean),
        "precision": _matrix(g.precision_mv, g.mean),
        "variance": _flat(g.variance),
        "precision_diagonal": _flat(g.precision_diagonal()),
        "root": _matrix(g.unwhiten, g.mean),
        "inverse_root": _matrix(g.whiten, g.mean),
    }


def _check(found: dict[str, jax.Array], mean: np.ndarray, cov: np.ndarray, params: np.ndarray) -> None:
    precision, r = np.linalg.inv(cov), params - mean
    log_prob = -0.5 * (len(r) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + r @ precision @ r)
    truth = {"mean": mean, "log_prob": log_prob, "covariance": cov, "precision": precision}
    truth |= {"variance": np.diag(cov), "precision_diagonal": np.diag(precision)}
    for name, value in truth.items():
        np.testing.assert_allclose(found[name], value, rtol=RTOL, atol=RTOL * np.max(np.abs(value)), err_msg=name)
    np.testing.assert_allclose(found["root"] @ found["root"].T, cov, rtol=RTOL, atol=RTOL * np.max(np.abs(cov)))
    np.testing.assert_allclose(found["inverse_root"] @ found["root"], np.eye(len(cov)), atol=RTOL)


@pytest.mark.x64
def test_a_layer_with_its_bias_agrees_with_dense_algebra():
    mean, params, x = _draw(0)
    once = {"a": {"bias": 0.25, "kernel": 4.0}}

    @jax.jit
    def queried(mean, params, x):
        g = _build(mean, x)
        bias = btl.tree.select(params, "a/bias")
        each = {
            "itself": (g, params),
            "rescale": (g.rescale(3.0), params),
            "per leaf": (g.rescale(once), params),
            "restrict": (g.restrict("a/bias"), bias),
            "condition": (g.condition(params, "a/bias"), bias),
        }
        return {name: _answers(*pair) for name, pair in each.items()}

    found = queried(mean, params, x)
    flat_mean, flat_params, cov = np.asarray(_flat(mean)), np.asarray(_flat(params)), _covariance(x)
    _check(found["itself"], flat_mean, cov, flat_params)
    _check(found["rescale"], flat_mean, 3 * cov, flat_params)
    roots = np.concatenate([np.full(6, 0.5), np.full(24, 2.0)])
    _check(found["per leaf"], flat_mean, roots[:, None] * cov * roots, flat_params)
    b, k = slice(0, 6), slice(6, None)
    _check(found["restrict"], flat_mean[b], cov[b, b], flat_params[b])
    gain = np.linalg.solve(cov[k, k], cov[k, b]).T
    moved = flat_mean[b] + gain @ (flat_params - flat_mean)[k]
    _check(found["condition"], moved, cov[b, b] - gain @ cov[k, b], flat_params[b])


@pytest.mark.x64
def test_one_scale_for_all_rows_can_be_inflated():
    mean, params, x = _draw(1, one_scale=True)
    found = jax.jit(lambda *args: _answers(_build(args[0], args[2]).inflate(0.7), args[1]))(mean, params, x)
    _check(found, np.asarray(_flat(mean)), _covariance(x) + 0.7 * np.eye(30), np.asarray(_flat(params)))
    equal = x._replace(scale=np.full(ROWS, x.scale))
    np.testing.assert_allclose(_flat(_build(mean, equal).inflate(0.7).variance), found["variance"], rtol=RTOL)


@pytest.mark.x64
def test_divergence_to_and_from_other_structures():
    (mean, _, x), (other_mean, _, y) = _draw(2), _draw(3)
    covariances = _covariance(x), _covariance(y)
    q, p = _build(mean, x), _build(other_mean, y)
    r = np.asarray(_flat(mean)) - np.asarray(_flat(other_mean))
    truth = np.trace(np.linalg.solve(covariances[1], covariances[0])) + r @ np.linalg.solve(covariances[1], r) - 30
    truth += np.linalg.slogdet(covariances[1])[1] - np.linalg.slogdet(covariances[0])[1]
    dense = gaussians.dense(p.mean, covariances[1])
    for prior in (p, dense):
        np.testing.assert_allclose(jax.jit(gaussians.kl_divergence)(q, prior), truth / 2, rtol=1e-9)


def test_parts_without_a_closed_form_are_refused():
    mean, params, x = _draw(0)
    g = _build(mean, x)
    with pytest.raises(ValueError, match=r"the marginal of 'a/kernel' without 'a/bias' has no closed form.*separate"):
        g.restrict("a/kernel")
    with pytest.raises(ValueError, match=r"the conditional of 'a/kernel' without 'a/bias' has no closed form"):
        g.condition(params, "a/kernel")
    with pytest.raises(ValueError, match=r"Sigma \+ eps I has no closed form for the layer of 'a/kernel'"):
        g.inflate(1.0)
    with pytest.raises(ValueError, match="no closed form for the layer"):
        jax.jit(lambda g: g.inflate(1.0))(_build(mean, x._replace(scale=np.ones(ROWS))))
    assert g.restrict(["a/bias", "a/kernel"]) is g


def test_it_is_found_again_in_other_containers(tmp_path):
    mean, params, x = _draw(4)
    g = _build(*jax.tree.map(lambda v: np.asarray(v, np.float32), (mean, x)))
    assert repr(g) == "Kronecker(D=30, paths=['a/bias', 'a/kernel'])"
    blocks = gaussians.by_path(
        {"a/**": g, "z": gaussians.isotropic({"z": jnp.ones(2)}, 1.0)}, like={**mean, "z": jnp.ones(2)}
    )
    gaussians.save(tmp_path / "g.safetensors", blocks)
    loaded = gaussians.load(tmp_path / "g.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(blocks)
    jax.tree.map(np.testing.assert_array_equal, loaded, blocks)

    class Reversed(dict):
        """Leaves in another order."""

    jax.tree_util.register_pytree_with_keys(
        Reversed,
        lambda d: ([(jax.tree_util.DictKey(k), d[k]) for k in sorted(d, reverse=True)], None),
        lambda _, children: Reversed(zip(sorted(["bias", "kernel"], reverse=True), children, strict=True)),
    )
    moved = g.realign({"a": Reversed(mean["a"])})
    v = {"a": Reversed(params["a"])}
    np.testing.assert_allclose(moved.precision_mv(v)["a"]["bias"], g.precision_mv(params)["a"]["bias"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(steps=[["reshape", [5, 2, 3]]]), r"no reshape to \(5, 2, 3\)"),
        (lambda m: m.update(steps=[["transpose", [0, 0, 1, 2]]]), "no transpose to"),
        (lambda m: m.update(steps=[["reshape", [4, 6]]]), r"not in \(groups, inputs, outputs\)"),
        (lambda m: m.update(steps=[["sort", [4, 6]]]), "are not the steps to a matrix"),
        (lambda m: m.update(bias=None), "a matrix is of other parameters"),
        (lambda m: m.update(steps=[["reshape", [1, 8, 3]]]), r"a bias of shape \(6,\) is not a row"),
        (lambda m: m.pop("bias"), r"has the settings \['steps', 'weights'\], not"),
    ],
)
def test_files_that_are_not_right_are_refused(tmp_path, change, message):
    mean, _, x = _draw(4)
    path = tmp_path / "g.safetensors"
    gaussians.save(path, _build(*jax.tree.map(lambda v: np.asarray(v, np.float32), (mean, x))))
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    header = json.loads(metadata["header"])
    change(header["structure"]["settings"])
    save_file(load_file(path), path, {**metadata, "header": json.dumps(header)})
    with pytest.raises(ValueError, match=message):
        gaussians.load(path)


def test_values_that_no_gaussian_has_are_not_saved(tmp_path):
    mean, _, x = _draw(4)
    mean, x = jax.tree.map(lambda v: np.asarray(v, np.float32), (mean, x))
    for name, value, message in (
        ("spectrum", -x.spectrum, "spectrum has 30 of 30 values <= 0"),
        ("inputs", 2 * x.inputs, "the columns of inputs are not orthonormal: off by 3"),
    ):
        with pytest.raises(ValueError, match=message):
            gaussians.save(tmp_path / "g.safetensors", _build(mean, x._replace(**{name: value})))


def test_bad_covariances_of_rows_and_columns_are_named():
    mean = {"w": jnp.zeros((2, 3))}
    good = {"w": jnp.eye(2)}, {"w": jnp.eye(3)}
    with pytest.raises(ValueError, match=r"rows at 'w' has shape \(3, 3\); a covariance of shape \(2, 2\) is needed"):
        gaussians.kronecker(mean, good[1], good[1])
    with pytest.raises(ValueError, match="columns at 'w' is missing"):
        gaussians.kronecker(mean, good[0], {"v": jnp.eye(3)})
    with pytest.raises(ValueError, match=r"columns at 'w' is not positive definite: its smallest eigenvalue is -1"):
        gaussians.kronecker(mean, good[0], {"w": -jnp.eye(3)})
    with pytest.raises(ValueError, match="rows at 'w' is not symmetric"):
        gaussians.kronecker(mean, {"w": jnp.array([[2.0, 1.0], [0.0, 2.0]])}, good[1])
    with pytest.raises(ValueError, match="mean at 's' is a single number"):
        gaussians.kronecker({"s": jnp.zeros(())}, {"s": jnp.eye(1)}, {"s": jnp.eye(1)})
