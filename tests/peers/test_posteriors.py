"""The same weights and data in posteriors: the GGN, dense and diagonal, as a posterior precision."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

SIZES, NUM, NOISE = (4, 5, 3), 12, 0.5


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["a"]) @ params["b"]


@pytest.mark.x64
@pytest.mark.parametrize("structure", ["dense_ggn", "diag_ggn"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_precision(task, structure):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        laplace = pytest.importorskip("posteriors").laplace
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=SIZES[:2]), "b": rng.normal(size=SIZES[1:])}
    inputs = rng.normal(size=(NUM, SIZES[0]))
    targets = rng.integers(0, SIZES[2], NUM) if task == "classification" else rng.normal(size=(NUM, SIZES[2]))

    def forward(params: Any, batch: Any) -> Any:
        return torch.tanh(batch[0] @ params["a"]) @ params["b"], torch.tensor([])

    def log_likelihood(outputs: Any, batch: Any) -> Any:
        if task == "classification":
            return -torch.nn.functional.cross_entropy(outputs, batch[1], reduction="sum")
        return torch.distributions.Normal(outputs, NOISE).log_prob(batch[1]).sum()

    start = {"init_prec" if structure == "dense_ggn" else "init_prec_diag": 2.0}
    theirs = getattr(laplace, structure).build(forward, log_likelihood, **start)
    state = theirs.init({name: torch.from_numpy(x) for name, x in params.items()})
    state, _ = theirs.update(state, (torch.from_numpy(inputs), torch.from_numpy(targets)))

    net = btl.nets.from_function(network, jax.tree.map(jnp.asarray, params))
    likelihood = btl.likelihoods.categorical() if task == "classification" else btl.likelihoods.normal(NOISE)
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 2.0**-0.5)
    joint = btl.LogJoint(net, likelihood, prior, num_data=NUM)
    curvature = btl.curvature.dense() if structure == "dense_ggn" else btl.curvature.diagonal()
    data = btl.data.arrays(inputs, targets)
    ours = btl.infer.laplace(jax.random.key(0), joint, net.params, data, curvature=curvature)
    diagonal = ours.precision_diagonal()
    if structure == "diag_ggn":
        for name, expected in state.prec_diag.items():
            np.testing.assert_allclose(diagonal[name], expected, rtol=1e-4)
        return
    expected = np.asarray(state.prec)
    flat = np.concatenate([np.asarray(diagonal[name]).ravel() for name in ("a", "b")])
    np.testing.assert_allclose(flat, np.diag(expected), rtol=1e-4)
    vector = {name: rng.normal(size=x.shape) for name, x in params.items()}
    product = ours.precision_mv(jax.tree.map(jnp.asarray, vector))
    flat = np.concatenate([np.asarray(product[name]).ravel() for name in ("a", "b")])
    given = np.concatenate([vector[name].ravel() for name in ("a", "b")])
    np.testing.assert_allclose(flat, expected @ given, rtol=1e-4)
