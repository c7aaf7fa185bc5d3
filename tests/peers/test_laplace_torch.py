"""The same weights and data in laplace-torch: curvature, evidence and linearised predictive agree.

All in float64 at arbitrary weights, which need not be a mode for either. Convolutions here have torch's own layout, so
that layers are found whatever the order of their axes.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._peers import peer

NOISE, PRECISION = 0.5, 2.0
NUM, CLASSES = 12, 3


class Peer(NamedTuple):
    """A network and data in both libraries."""

    model: Any
    inputs: Any
    targets: Any
    net: btl.Net
    joint: btl.LogJoint
    data: Any


@pytest.fixture(scope="module")
def laplace() -> Any:
    torch, found = peer("torch"), peer("laplace")
    if found is None:
        pytest.skip("laplace-torch is not installed")
    torch.manual_seed(0)
    return found


def mlp(params: Any, x: jax.Array) -> jax.Array:
    """What ``nn.Sequential(Linear, Tanh, Linear)`` computes."""
    x = jnp.tanh(x @ params["0"]["weight"].T + params["0"]["bias"])
    return x @ params["2"]["weight"].T + params["2"]["bias"]


def conv_net(params: Any, x: jax.Array) -> jax.Array:
    """What ``nn.Sequential(Conv2d, ReLU, Flatten, Linear)`` computes, pictures (B, C, H, W)."""
    x = jax.lax.conv_general_dilated(x, params["0"]["weight"], (2, 2), [(1, 1), (1, 1)])
    x = jax.nn.relu(x + params["0"]["bias"][:, None, None])
    return x.reshape(len(x), -1) @ params["3"]["weight"].T + params["3"]["bias"]


def both(network: str, task: str) -> Peer:
    import torch
    from torch import nn

    outputs = CLASSES if task == "classification" else 2
    if network == "mlp":
        model, shape = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)), (4,)
    else:
        layers = [nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, outputs)]
        model, shape = nn.Sequential(*layers), (2, 6, 6)
    model = model.double()
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(NUM, *shape))
    targets = rng.integers(0, CLASSES, NUM) if task == "classification" else rng.normal(size=(NUM, outputs))
    params: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        layer, kind = name.split(".")
        params.setdefault(layer, {})[kind] = jnp.asarray(value.numpy())
    net = btl.nets.from_function(mlp if network == "mlp" else conv_net, params)
    likelihood = btl.likelihoods.categorical() if task == "classification" else btl.likelihoods.normal(NOISE)
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), PRECISION**-0.5)
    joint = btl.LogJoint(net, likelihood, prior, num_data=NUM)
    data = btl.data.arrays(inputs, targets)
    return Peer(model, torch.from_numpy(inputs), torch.from_numpy(targets), net, joint, data)


def theirs(laplace: Any, peer: Peer, task: str, structure: str) -> Any:
    import torch

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(peer.inputs, peer.targets), batch_size=NUM)
    noise = {"sigma_noise": NOISE} if task == "regression" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = laplace.Laplace(
            peer.model,
            task,
            subset_of_weights="all",
            hessian_structure=structure,
            prior_precision=PRECISION,
            backend=laplace.curvature.CurvlinopsGGN,
            **noise,
        )
        found.fit(loader)
    return found


STRUCTURES = {
    "diag": btl.curvature.diagonal(),
    "kron": btl.curvature.kronecker(bias=btl.curvature.separate),  # as theirs
    "full": btl.curvature.dense(),
}


@pytest.mark.x64
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("network", ["mlp", "conv_net"])
def test_evidence_and_predictive(laplace, network, task, structure):
    peer = both(network, task)
    other = theirs(laplace, peer, task, structure)
    key, curvature = jax.random.key(0), STRUCTURES[structure]
    value = btl.infer.log_evidence(key, peer.joint, peer.net.params, peer.data, curvature=curvature)
    assert float(value) == pytest.approx(float(other.log_marginal_likelihood()), rel=1e-4)
    posterior = btl.infer.laplace(key, peer.joint, peer.net.params, peer.data, curvature=curvature)
    outputs = btl.predict.linearized(peer.joint, posterior, link=lambda outputs: outputs)(np.asarray(peer.inputs))
    mean, covariance = other._glm_predictive_distribution(peer.inputs)
    np.testing.assert_allclose(outputs.mean[0], mean.detach(), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(outputs.covariance[0], covariance.detach(), rtol=1e-4, atol=1e-8)
    if task == "regression":
        # Their variance of f is without observation noise, which is added by whoever wants it.
        found = btl.predict.linearized(peer.joint, posterior)(np.asarray(peer.inputs))
        variance = np.einsum("bii->bi", covariance.detach())
        np.testing.assert_allclose(found.function_variance(), variance, rtol=1e-4)
        np.testing.assert_allclose(found.variance, variance + NOISE**2, rtol=1e-4)


@pytest.mark.x64
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("network", ["mlp", "conv_net"])
def test_diagonal_and_dense_curvature(laplace, network, task):
    peer = both(network, task)
    order = [(layer, kind) for layer in peer.net.params for kind in ("weight", "bias")]

    def in_their_order(tree: Any) -> np.ndarray:
        return np.concatenate([np.asarray(tree[layer][kind]).ravel() for layer, kind in order])

    # Of the posterior precision, H / noise^2 where there is noise, less that of the prior.
    other = theirs(laplace, peer, task, "diag")
    ours = btl.infer.laplace(
        jax.random.key(0), peer.joint, peer.net.params, peer.data, curvature=btl.curvature.diagonal()
    )
    expected = np.asarray(other.posterior_precision.detach())
    np.testing.assert_allclose(in_their_order(ours.precision_diagonal()), expected, rtol=1e-4)
    other = theirs(laplace, peer, task, "full")
    ours = btl.infer.laplace(jax.random.key(0), peer.joint, peer.net.params, peer.data)
    expected = np.asarray(other.posterior_precision.detach())
    vector = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(2).normal(size=x.shape)), peer.net.params)
    product = in_their_order(ours.precision_mv(vector))
    np.testing.assert_allclose(product, expected @ in_their_order(vector), rtol=1e-4, atol=1e-8)
