"""The network made linear at some parameters, in its dual form: its mode, and its modes without groups of examples.

With J the Jacobian of all outputs at theta, G = J S0 J^T and a one number per output, theta(a) = mu + S0 J^T a has
the outputs ``z(a) = offset + G a``, ``offset = z - J (theta - mu)``, and costs ``1/2 a^T G a`` under the prior. Every
mode of the linearised network has this form, with a = 0 at the examples that are left out. It does not matter how far
theta itself is from a mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params
from bayestl.tune._criteria import example_weights
from bayestl.tune._gram import outputs_gram
from bayestl.tune._output_space import OutputSpace, flattened, output_space

# Nats that one more Newton step would gain where the steps end.
_TOLERANCE = 1e-10
_HALVINGS = 20


class LinearNetwork(NamedTuple):
    """The linearised network of N examples with F outputs each; float64 on the host.

    Attributes:
        space: the likelihood at the outputs of the network itself.
        offset: outputs of the linearised network at the prior's mean, (N F,).
        gram: G, (N F, N F).
        powers: how often each example counts, (N,).
    """

    space: OutputSpace
    offset: np.ndarray
    gram: np.ndarray
    powers: np.ndarray

    def outputs(self, dual: np.ndarray) -> np.ndarray:
        """(G, N F) to (G, N, F)."""
        return (self.offset + dual @ self.gram).reshape(len(dual), *self.space.outputs.shape)

    def losses(self, dual: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Minus the log joint without constants, nats, (G,), of the examples that count, (G, N)."""
        each = np.where(counted, self.space.log_probs(self.outputs(dual)), 0.0)
        return 0.5 * np.sum(dual * (dual @ self.gram), 1) - np.sum(counted * self.powers * each, 1)


def linear_network(joint: LogJoint, params: Params, batch: Batch) -> LinearNetwork:
    """The network linearised at ``params``, under the prior of ``joint``."""
    prior: Any = joint.prior
    outputs, change = moved(joint.replace(prior=None), params, _tree.sub(params, prior.mean), batch)
    offset = jax.tree.map(jnp.subtract, outputs, change)
    space = output_space(joint.likelihood, outputs, batch.targets)
    return LinearNetwork(
        space,
        flattened(offset).ravel(),
        outputs_gram(joint, prior, params, batch.inputs),
        float(joint.kappa) * example_weights(batch, len(space.outputs)),
    )


def mode(network: LinearNetwork, most_steps: int = 30) -> np.ndarray:
    """The dual of the mode of all examples, (1, N F)."""
    counted = np.ones((1, len(network.powers)), bool)
    return _minimise(network, network.space.outputs[None], counted, most_steps)


def modes_without(network: LinearNetwork, dual: np.ndarray, groups: np.ndarray, most_steps: int = 30) -> np.ndarray:
    """The duals of the modes without each group, (G, N F), from the mode of all examples."""
    counted = groups != np.arange(groups.max() + 1)[:, None]
    start = np.repeat(network.outputs(dual), len(counted), 0)
    return _minimise(network, start, counted, most_steps)


def _minimise(network: LinearNetwork, outputs: np.ndarray, counted: np.ndarray, most_steps: int) -> np.ndarray:
    """Newton's method with halved steps, from outputs that need not belong to any dual, (G, N, F)."""
    active = np.arange(len(outputs))
    dual = _newton(network, outputs, counted, active)
    losses, from_mean = network.losses(dual, counted), np.zeros_like(dual)
    # Where the first step overshoots by so much that it is worse than the prior's mean, begin there.
    at_mean = network.losses(from_mean, counted)
    worse = ~(losses <= at_mean)
    dual, losses = np.where(worse[:, None], from_mean, dual), np.where(worse, at_mean, losses)
    # All rows go into every program, so that one shape is compiled; those at rest have a step of zero.
    for _ in range(most_steps - 1):
        step = np.zeros_like(dual)
        step[active] = (_newton(network, network.outputs(dual), counted, active) - dual)[active]
        size, before, after = np.ones(len(dual)), losses, losses
        above = np.zeros(len(dual), bool)
        for _ in range(_HALVINGS):
            after = network.losses(dual + size[:, None] * step, counted)
            above = ~(after <= before + 1e-12 * (1 + np.abs(before)))
            if not above.any():
                break
            size = np.where(above, 0.5 * size, size)
        dual = np.where(above[:, None], dual, dual + size[:, None] * step)
        losses = np.where(above, before, after)
        active = active[(before - losses > _TOLERANCE)[active]]
        if not len(active):
            break
    return dual


def _newton(network: LinearNetwork, outputs: np.ndarray, counted: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Duals after a whole Newton step from these outputs: ``a = -(I + H G)^-1 (g - H t)`` among the examples that
    count, ``t = z - offset``, by ``(I + L L^T G)^-1 = I - L (I + L^T G L)^-1 L^T G``; zero where not active."""
    slopes, roots = network.space.slopes(outputs), network.space.roots_at(outputs)
    num, width = outputs.shape[1:]
    duals = np.zeros((len(outputs), num, width))
    for number in active:
        rows = counted[number]
        gram = network.gram.reshape(num, width, num, width)[rows][:, :, rows]
        powers = network.powers[rows]
        root = np.sqrt(powers)[:, None, None] * roots[number][rows]  # (R, F, K)
        away = (outputs[number] - network.offset.reshape(num, width))[rows]
        force = powers[:, None] * slopes[number][rows] - _through(root, _across(root, away))
        pushed = (gram.reshape(force.size, -1) @ force.ravel()).reshape(force.shape)
        duals[number][rows] = posterior_dual(gram, root, pushed) - force
    return duals.reshape(len(outputs), -1)


def posterior_dual(gram: np.ndarray, root: np.ndarray, pushed: np.ndarray) -> np.ndarray:
    """``L (I + L^T G L)^-1 L^T v`` for v (R, F), G (R, F, R, F) and L (R, F, K): (R, F)."""
    inner = whitened(gram, root)
    solved = np.linalg.solve(np.eye(len(inner)) + inner, _across(root, pushed).ravel())
    return _through(root, solved.reshape(len(root), -1))


def whitened(gram: np.ndarray, root: np.ndarray) -> np.ndarray:
    """``L^T G L``, (R K, R K)."""
    size, width, columns = root.shape
    right = np.matmul(gram.reshape(size * width, size, width).transpose(1, 0, 2), root)  # (R, R F, K)
    right = right.transpose(1, 0, 2).reshape(size, width, size * columns)
    return np.matmul(root.transpose(0, 2, 1), right).reshape(size * columns, size * columns)


def _through(root: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.einsum("nfk,nk->nf", root, values)


def _across(root: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.einsum("nfk,nf->nk", root, values)


@jax.jit
def moved(joint: LogJoint, params: Params, direction: Params, batch: Batch) -> tuple[Any, Any]:
    """Outputs at ``params``, and how much they change with the parameters in this direction."""

    def outputs(params: Params) -> Any:
        return _tree.at_least_float32(joint.outputs(params, batch.inputs)[0])

    direction = jax.tree.map(lambda d, p: jnp.asarray(d, p.dtype), direction, params)
    return jax.jvp(outputs, (params,), (direction,))
