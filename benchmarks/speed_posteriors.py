"""What posteriors cost beside their peers in torch, for ``benchmarks.speed``: the same network, data and machine.

Peers are laplace-torch with its fastest backend, BackPACK, and posteriors. Where they are not installed our own seconds
are printed alone.
"""

from __future__ import annotations

import functools
import resource
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._peers import peer
from benchmarks._speed_work import MOMENTUM, RATE, Workload, alternate, conv_net, low_rank_prior, mlp, show, timed

PICTURES, TO_PREDICT, CLASSES = 1000, 200, 10
MEMBERS = 8
SIZES, BATCH, STEPS = (1024, 256, 10), 64, 300


def rows(repeats: int) -> list[dict[str, Any]]:
    """(l) curvature, (m) linearised predictions, (n) steps of SGHMC and VI, (o) an ensemble."""
    rows = [*curvature(repeats), *steps(repeats), *ensembles(repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process, peers included: {peak:.2f} GiB")
    return [{**row, "peak_memory_gib": peak} for row in rows]


def beside(name: str, ours: Callable[[], Any], theirs: Callable[[], Any] | None, target: float, repeats: int) -> Any:
    """A row of the ratio to a peer, or of our own seconds."""
    if theirs is not None:
        return show(name, alternate(timed(ours), timed(theirs), repeats), target)
    run = timed(ours)
    first, seconds = run(), float(np.median([run() for _ in range(repeats)]))
    print(f"{name}: {seconds * 1e3:.0f} ms, first run {first:.1f} s; the peer is not installed")
    return {"name": name, "target": target, "a": seconds, "first_a": first}


def picture_net(params: Any, x: jax.Array) -> jax.Array:
    """Three convolutions with ReLUs and average pooling, and two dense layers: 89,834 parameters."""
    for layer in params["conv"]:
        x = jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + layer["b"])
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
    x = jax.nn.relu(x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ params["dense"]["w"] + params["dense"]["b"])
    return x @ params["head"]["w"] + params["head"]["b"]


def pictures() -> tuple[btl.LogJoint, Any, np.ndarray, np.ndarray]:
    """The log joint of that network, its parameters, pictures (B, 32, 32, 3) and labels."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        fan_in = int(np.prod(shape[:-1]))
        return jnp.asarray(rng.normal(size=shape).astype(np.float32) / np.sqrt(fan_in))

    def layer(*shape: int) -> Any:
        return {"w": weights(*shape), "b": jnp.zeros(shape[-1])}

    params = {
        "conv": [layer(3, 3, 3, 16), layer(3, 3, 16, 32), layer(3, 3, 32, 64)],
        "dense": layer(1024, 64),
        "head": layer(64, CLASSES),
    }
    net = btl.nets.from_function(picture_net, params)
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(params), 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=PICTURES)
    inputs = rng.normal(size=(PICTURES, 32, 32, 3)).astype(np.float32)
    return joint, params, inputs, rng.integers(0, CLASSES, PICTURES)


def torch_net(torch: Any, params: Any) -> Any:
    """The same network with the same weights."""
    nn, parts = torch.nn, []
    for layer in params["conv"]:
        conv = nn.Conv2d(layer["w"].shape[2], layer["w"].shape[3], 3, padding=1)
        conv.weight.data = torch.from_numpy(np.array(layer["w"]).transpose(3, 2, 0, 1).copy())
        conv.bias.data = torch.from_numpy(np.array(layer["b"]))
        parts += [conv, nn.ReLU(), nn.AvgPool2d(2)]
    parts.append(nn.Flatten())
    for name in ("dense", "head"):
        linear = nn.Linear(*params[name]["w"].shape)
        linear.weight.data = torch.from_numpy(np.array(params[name]["w"]).T.copy())
        linear.bias.data = torch.from_numpy(np.array(params[name]["b"]))
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def curvature(repeats: int) -> list[dict[str, Any]]:
    """(l) and (m)."""
    joint, params, inputs, labels = pictures()
    data, torch, laplace = btl.data.arrays(inputs, labels), peer("torch"), peer("laplace")
    rows = []
    # The trial that set the targets: fits at most as long as BackPACK's, the Kronecker predictive a third.
    for name, structure, predict_target in (
        ("diag", btl.curvature.diagonal(), 1.0),
        ("kron", btl.curvature.kronecker(), 1 / 3),
    ):
        fit = functools.partial(btl.infer.laplace, jax.random.key(0), joint, params, data, curvature=structure)
        posterior = fit()
        predict = btl.predict.linearized(joint, posterior, link=lambda outputs: outputs)
        their_fit, their_predict = None, None
        if torch is not None and laplace is not None:
            their_fit, their_predict = their_laplace(torch, laplace, params, inputs, labels, name)
        rows.append(beside(f"(l) {name} GGN of {PICTURES} pictures / BackPACK", fit, their_fit, 1.0, repeats))
        ours = functools.partial(predict, inputs[:TO_PREDICT])
        words = f"(m) {name} GLM predictive of {TO_PREDICT} pictures / laplace-torch"
        rows.append(beside(words, ours, their_predict, predict_target, repeats))
    return rows


def their_laplace(torch: Any, laplace: Any, params: Any, inputs: Any, labels: Any, structure: str) -> Any:
    """Functions that fit laplace-torch with BackPACK, and that predict."""
    model = torch_net(torch, params)
    pictures = torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(pictures, torch.from_numpy(labels)), batch_size=100
    )

    def fit() -> Any:
        rows = laplace.Laplace(
            model,
            "classification",
            subset_of_weights="all",
            hessian_structure=structure,
            backend=laplace.curvature.BackPackGGN,
        )
        rows.fit(loader)
        return rows

    fitted = fit()

    def predict() -> Any:
        for start in range(0, TO_PREDICT, 50):
            fitted._glm_predictive_distribution(pictures[start : start + 50])
        return 0

    return lambda: (fit(), 0)[1], predict


def steps(repeats: int) -> list[dict[str, Any]]:
    """(n) steps per second of SGHMC and mean-field VI under a low-rank prior, against posteriors."""
    net = btl.nets.mlp(jax.random.key(0), SIZES)
    prior = low_rank_prior(net)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2048, SIZES[0])).astype(np.float32)
    data = btl.data.arrays(inputs, rng.integers(0, SIZES[-1], 2048))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=2048)
    torch, posteriors = peer("torch"), peer("posteriors")
    rows = []
    for name, method in (
        ("SGHMC", btl.infer.sghmc(joint, 1e-6, num_samples=1, every=10_000)),
        ("mean-field VI", btl.infer.mean_field_vi(joint, optax.adam(RATE))),
    ):

        def ours(method: btl.Inference = method) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a chain without draws, which is what is timed
                fitted = btl.fit(
                    jax.random.key(0), method, net.params, data, steps=STEPS, batch_size=BATCH, progress=False
                )
            return fitted.state

        theirs = None
        if torch is not None and posteriors is not None:
            theirs = their_steps(torch, posteriors, net.params, prior, data, name)
        rows.append(beside(f"(n) {STEPS} steps of {name} / posteriors", ours, theirs, 1 / 6, repeats))
    return rows


def their_steps(torch: Any, posteriors: Any, params: Any, prior: Any, data: Any, name: str) -> Callable[[], Any]:
    """The same steps in posteriors, the low-rank prior by torch's own distribution."""
    tensors = {
        f"{layer}.{kind}": torch.from_numpy(np.array(params[layer][kind])) for layer in params for kind in params[layer]
    }
    flat = torch.cat([x.ravel() for x in tensors.values()])
    factor = torch.from_numpy(
        np.concatenate(
            [
                np.array(leaf).reshape(prior.rank, -1)
                for layer in params
                for leaf in (prior.basis[layer][kind] for kind in params[layer])
            ],
            axis=1,
        ).T.copy()
    )
    at_source = torch.distributions.LowRankMultivariateNormal(flat, factor, torch.ones(len(flat)), validate_args=False)
    inputs, labels = torch.from_numpy(np.array(data.inputs)), torch.from_numpy(np.array(data.targets)).long()

    def log_joint(values: Any, batch: Any) -> Any:
        x = torch.relu(batch[0] @ values["dense_0.kernel"] + values["dense_0.bias"])
        logits = x @ values["head.kernel"] + values["head.bias"]
        log_prior = at_source.log_prob(torch.cat([values[key].ravel() for key in tensors]))
        nll = torch.nn.functional.cross_entropy(logits, batch[1])
        return -nll + log_prior / len(inputs), torch.tensor([])

    if name == "SGHMC":
        transform = posteriors.sgmcmc.sghmc.build(log_joint, lr=1e-3, temperature=1 / len(inputs))
    else:
        adam = peer("torchopt").adam(lr=RATE)
        transform = posteriors.vi.diag.build(log_joint, adam, temperature=1 / len(inputs))

    def run() -> Any:
        state = transform.init(tensors)
        for step in range(STEPS):
            picked = torch.arange(step * BATCH, (step + 1) * BATCH) % len(inputs)
            state, _ = transform.update(state, (inputs[picked], labels[picked]), inplace=False)
        return 0

    return run


def ensembles(repeats: int) -> list[dict[str, Any]]:
    """(o) an ensemble of eight against eight runs one after another."""
    return [_ensemble(mlp()._replace(steps=100), 0.5, repeats), _ensemble(conv_net(), None, repeats)]


def _ensemble(work: Workload, target: float | None, repeats: int) -> dict[str, Any]:
    joint = btl.LogJoint(work.net, btl.likelihoods.categorical(), None, num_data=work.data.num_examples)
    noise = btl.tree.normal_like(jax.random.key(1), work.net.params, MEMBERS)
    starts = jax.tree.map(lambda x, e: x + 0.01 * e, work.net.params, noise)
    options = {"steps": work.steps, "batch_size": work.batch_size, "progress": False}

    def at_once() -> Any:
        return btl.infer.ensemble(jax.random.key(2), joint, starts, work.data, by_sgd, **options)

    def in_turn() -> Any:
        each = [jax.tree.map(lambda x: x[number], starts) for number in range(MEMBERS)]  # noqa: B023
        return [btl.fit(jax.random.key(2), by_sgd(joint), start, work.data, **options).params for start in each]

    name = f"(o) {work.name}: an ensemble of {MEMBERS} / one after another"
    return show(name, alternate(timed(at_once), timed(in_turn), repeats), target)


def by_sgd(joint: btl.LogJoint) -> btl.Inference:
    """A member."""
    return btl.infer.map_estimate(joint, optax.sgd(RATE, momentum=MOMENTUM))
