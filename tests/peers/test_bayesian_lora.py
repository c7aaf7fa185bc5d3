"""The same adapters and data in bayesian-lora: Kronecker factors, linearised predictive, and the terms of the evidence.

Two layers with adapters, at arbitrary weights. bayesian-lora 0.0.6 differs in three ways, of which these tests take
account. It samples the labels of its Fisher matrix: here the same labels are drawn again, and ours is the empirical
Fisher matrix of them. Its curvature is that of one example, not of all (a mean where the log likelihood is a sum), and
so kappa = 1 / N for ours. It looks at the last token of a sequence alone, and so sequences have one.
"""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._peers import peer

# Its two kinds of factors, exact ones (of sides below the threshold) and low-rank ones, tell each other by their sizes.
SIZE, RANK, THRESHOLD = 4, 2, 3
NUM, SCALE, LORA = 15, 0.7, 1.5
LAYERS = ("first", "second")


class Both(NamedTuple):
    """Their library, network and factors, and our log joint and data."""

    library: Any
    model: Any
    inputs: Any
    factors: Any
    joint: btl.LogJoint
    params: Any
    data: Any


def source(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"]) @ params["second"]


@pytest.fixture(scope="module")
def torch() -> Any:
    if (found := peer("torch")) is None or peer("bayesian_lora") is None:
        pytest.skip("bayesian-lora is not installed, or torch or transformers, which it imports, are not")
    return found


def both(torch: Any, kfac_rank: int = SIZE) -> Both:
    library, rng = peer("bayesian_lora"), np.random.default_rng(0)
    weights = {name: rng.normal(size=(SIZE, SIZE)) for name in LAYERS}
    inputs = rng.normal(size=(NUM, SIZE))
    net = btl.nets.from_function(source, jax.tree.map(jnp.asarray, weights))
    net = btl.nets.adapt(jax.random.key(0), net, inputs, RANK, scale=LORA)
    params = btl.tree.add(net.params, btl.tree.scale(0.3, btl.tree.normal_like(jax.random.key(1), net.params)))

    class Adapted(torch.nn.Module):
        """What ``x W + s (x A) B`` is there; s lies between the products, as ours does."""

        def __init__(self, name: str):
            super().__init__()
            self.weight = torch.from_numpy(weights[name])
            a, b = (np.array(params[name][factor]) for factor in "ab")
            self.lora_A = torch.nn.Linear(SIZE, RANK, bias=False)
            self.lora_B = torch.nn.Linear(RANK, SIZE, bias=False)
            self.lora_A.weight = torch.nn.Parameter(torch.from_numpy(a.T.copy()))
            self.lora_B.weight = torch.nn.Parameter(torch.from_numpy(b.T.copy()))

        def forward(self, x: Any) -> Any:
            return x @ self.weight + self.lora_B(LORA * self.lora_A(x))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Adapted("first"), Adapted("second")

        def forward(self, input_ids: Any) -> Any:
            return self.second(torch.tanh(self.first(input_ids)))[:, -1]

    model, sequences = Model(), torch.from_numpy(inputs)[:, None]
    with torch.no_grad():
        torch.manual_seed(0)
        labels = torch.multinomial(model(sequences).softmax(-1), 1).view(-1).numpy()
    torch.manual_seed(0)
    factors = library.calculate_kronecker_factors(
        model, lambda model, batch: model(batch), [sequences], kfac_rank, THRESHOLD, target_module_keywords=["lora"]
    )
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(params), SCALE)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=NUM, kappa=1 / NUM)
    return Both(library, model, sequences, factors, joint, params, btl.data.arrays(inputs, labels))


def decomposed(torch: Any, setting: Both) -> Any:
    """Their factors with roots of the exact ones, as its predictive and its evidence take them."""
    copies = dict(setting.factors)
    return setting.library.cholesky_decompose_small_factors(copies, THRESHOLD, "cpu", torch.float64)


def variance(torch: Any, setting: Both) -> np.ndarray:
    batch = {"input_ids": setting.inputs}
    jacobian, _ = setting.library.main.jacobian_mean(setting.model, batch, output_callback=lambda logits: logits)
    found = setting.library.variance(
        types.SimpleNamespace(**batch),
        jacobian,
        decomposed(torch, setting),
        torch.tensor(SCALE**2, dtype=torch.float64),
        SIZE,
        RANK,
        setting.factors["first.lora_A"][0].shape[1],
        "cpu",
    )
    return found.detach().numpy()


@pytest.mark.x64
def test_factors_and_predictive(torch):
    setting = both(torch)
    x = np.asarray(setting.data.inputs)
    # Factors of the first layer's A by hand, from its inputs and the gradients at its outputs.
    a_factor = setting.factors["first.lora_A"][0].numpy()
    np.testing.assert_allclose(a_factor @ a_factor.T, x.T @ x, rtol=1e-8, atol=1e-8)
    posterior = btl.infer.laplace(
        jax.random.key(0), setting.joint, setting.params, setting.data,
        curvature=btl.curvature.kronecker(), kind=btl.curvature.empirical_fisher,
    )  # fmt: skip
    outputs = btl.predict.linearized(setting.joint, posterior, link=lambda outputs: outputs)(x)
    np.testing.assert_allclose(outputs.mean[0], setting.model(setting.inputs).detach(), rtol=1e-6, atol=1e-6)
    theirs = variance(torch, setting)
    np.testing.assert_allclose(outputs.covariance[0], theirs, rtol=1e-4, atol=1e-6)
    prior = btl.gaussians.isotropic(setting.params, SCALE)
    before = btl.predict.linearized(setting.joint, prior, link=lambda outputs: outputs)(x).covariance[0]
    assert np.abs(before - theirs).max() > 0.01  # the data are felt
    # Factors of lower rank leave curvature out, so that its predictive is between the exact one and that of the prior.
    lower = variance(torch, both(torch, kfac_rank=2))
    for wider, narrower in ((before, lower), (lower, theirs)):
        assert np.linalg.eigvalsh(np.asarray(wider) - narrower).min() > -1e-6
    assert np.abs(lower - theirs).max() > 1e-3


@pytest.mark.x64
def test_evidence(torch):
    # Ours is log p(D | theta) - |theta|^2 / (2 s^2) - log|M| / 2 with M = I + s^2 H. Theirs has the same M, and adds
    # norms |theta| / s^2 and log|M| / 2 where they are to be subtracted, and a constant of one layer: it rises with
    # what the data tell, and should not choose a prior.
    setting = both(torch)
    value = btl.infer.log_evidence(
        jax.random.key(0), setting.joint, setting.params, setting.data,
        curvature=btl.curvature.kronecker(), kind=btl.curvature.empirical_fisher,
    )  # fmt: skip
    factors, variance = decomposed(torch, setting), torch.tensor(SCALE**2, dtype=torch.float64)
    log_det = 0.0
    for pair in factors.values():
        log_det += torch.linalg.slogdet(setting.library.main.calc_M(*pair, RANK, SIZE, variance))[1].item()
    assert log_det > 0.1
    log_likelihood = float(setting.joint.log_likelihoods(setting.params, setting.data.first(NUM)).sum()) / NUM
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(setting.params))
    assert float(value) == pytest.approx(log_likelihood - squares / (2 * SCALE**2) - log_det / 2, rel=1e-4)
    theirs = setting.library.model_evidence(
        setting.model, torch.tensor(log_likelihood, dtype=torch.float64), factors, RANK, SIZE, variance
    )
    norms = sum(float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(setting.params))
    constant = -RANK * SIZE * np.log(SCALE**2) / 2
    expected = log_likelihood + norms / SCALE**2 + log_det / 2 + constant
    assert theirs.item() == pytest.approx(expected, rel=1e-4)
