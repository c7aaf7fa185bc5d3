"""Regression: the network made linear at the mode, where leaving out an example and the evidence have closed forms.

With targets ``t = y - f + J (theta* - mu)`` the linear model is ``t ~ N(0, S)``, ``S = J S0 J^T + sigma^2 I``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Likelihood, Params
from bayestl.tune._criteria import Fitted
from bayestl.tune._gram import outputs_gram
from bayestl.tune._left_out import LeftOut

# The variance of the noise is looked for between these shares of that of the targets.
_LEAST, _MOST = 1e-5, 4.0
_LOOK, _REFINE = 61, 40


class LinearModel(NamedTuple):
    """The linearised network of N examples with F targets each, float64 on the host.

    Attributes:
        gram: ``J S0 J^T``, (N F, N F).
        targets: ``y - f + J (theta* - mu)``, (N F,).
        num_examples: N.
    """

    gram: np.ndarray
    targets: np.ndarray
    num_examples: int

    def log_evidence(self, variance: float) -> float:
        """``log N(t; 0, gram + variance I)`` in nats."""
        covariance = self.gram + variance * np.eye(len(self.gram))
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, self.targets)
        constant = len(white) * np.log(2 * np.pi) + 2 * np.sum(np.log(np.diagonal(root)))
        return float(-0.5 * (constant + white @ white))

    def left_out(self, variance: float) -> np.ndarray:
        """``log p(y_i | all other examples)``, (N,), nats; all F targets of an example together.

        The example's residual is ``C alpha_i`` and its covariance C, with C the inverse of the block of S^-1 that
        belongs to it, and ``alpha = S^-1 t``.
        """
        alpha, blocks = self._without_each(variance)
        quadratic = np.einsum("nf,nf->n", alpha, np.linalg.solve(blocks, alpha[..., None])[..., 0])
        return 0.5 * (np.linalg.slogdet(blocks)[1] - alpha.shape[1] * np.log(2 * np.pi) - quadratic)

    def left_out_errors(self, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """``y_i - E[y_i | all other examples]`` and the standard deviations of these predictions, (N, F) each."""
        alpha, blocks = self._without_each(variance)
        covariances = np.linalg.inv(blocks)
        deviations = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
        return np.einsum("nfg,ng->nf", covariances, alpha), deviations

    def _without_each(self, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """``S^-1 t``, (N, F), and the blocks of S^-1 of each example, (N, F, F)."""
        inverse = np.linalg.inv(self.gram + variance * np.eye(len(self.gram)))
        width = len(self.gram) // self.num_examples
        blocks = inverse.reshape(self.num_examples, width, self.num_examples, width)
        return (inverse @ self.targets).reshape(-1, width), np.moveaxis(blocks.diagonal(axis1=0, axis2=2), -1, 0)

    def best_variance(self, typical: float) -> float:
        """The variance of the noise with the largest evidence, near ``typical``, that of the targets."""
        values, vectors = np.linalg.eigh(self.gram)
        squares = (vectors.T @ self.targets) ** 2
        values = np.maximum(values, 0)

        def loss(log_variance: np.ndarray) -> np.ndarray:
            total = values + np.exp(log_variance)[..., None]
            return np.sum(np.log(total) + squares / total, -1)

        grid = np.linspace(np.log(_LEAST * typical), np.log(_MOST * typical), _LOOK)
        best = int(np.argmin(loss(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _LOOK - 1)]
        golden = 0.5 * (np.sqrt(5) - 1)
        for _ in range(_REFINE):
            left, right = high - golden * (high - low), low + golden * (high - low)
            low, high = (low, right) if loss(left) < loss(right) else (left, high)
        return float(np.exp(0.5 * (low + high)))


def linear_model(joint: LogJoint, params: Params, batch: Batch) -> LinearModel:
    """The linearised network at a mode, under the prior of ``joint``.

    Args:
        joint: network, prior, and a normal likelihood whose outputs are locations, (N,) or (N, F).
        params: the mode.
        batch: N examples.

    Raises:
        TypeError: another likelihood.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=2)
        >>> model = btl.tune.linear_model(joint, {"w": jnp.ones(1)}, btl.Batch(jnp.ones((2, 1)), jnp.array([1.0, 2.0])))
        >>> print(model.left_out(1.0).round(4))  # N(1; 1, 1.5), N(2; 1/2, 1.5)
        [-1.1217 -1.8717]
    """
    check_arguments(linear_model, locals())
    joint.check(params, batch.inputs, batch.targets, batch.weights)
    noise = jax.eval_shape(lambda: likelihoods.gaussian_noise(joint.likelihood, joint.outputs(params, batch.inputs)[0]))
    if noise is None:
        raise TypeError(
            f"the likelihood is a {type(joint.likelihood).__name__}; the linear model of a regression has "
            "likelihoods.normal(scale) around an array of locations"
        )
    prior: Any = joint.prior
    gram = outputs_gram(joint, prior, params, batch.inputs)
    if not np.isfinite(gram).all():
        raise ValueError(
            "the network's Jacobians are not finite for these inputs at these params; look for NaN in batch.inputs"
        )
    residuals = _residuals(joint.replace(prior=None), prior.mean, params, batch)
    return LinearModel(gram, np.asarray(residuals, np.float64).ravel(), len(residuals))


@jax.jit
def _residuals(joint: LogJoint, mean: Params, params: Params, batch: Batch) -> jax.Array:
    def outputs(params: Params) -> jax.Array:
        return _tree.at_least_float32(joint.outputs(params, batch.inputs)[0])

    at, change = jax.jvp(outputs, (params,), (_tree.sub(params, mean),))
    return jnp.asarray(batch.targets, at.dtype) - at + change


@dataclasses.dataclass(frozen=True)
class LinearLeaveOneOut:
    """Leave-one-out predictions of the linearised network. Made by :func:`linear_leave_one_out`."""

    @property
    def groups(self) -> None:
        """No fits beside that of all data."""
        return None

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """(N,)."""
        return linear_model(joint, fitted.params, batch).left_out(noise_variance(joint))

    def predictions(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> LeftOut:
        """Of each example, with the uncertainty of the posterior and the noise."""
        model, variance = linear_model(joint, fitted.params, batch), noise_variance(joint)
        errors, deviations = model.left_out_errors(variance)
        targets = np.asarray(batch.targets, np.float64).reshape(errors.shape)
        return LeftOut(np.arange(len(errors)), targets - errors, deviations, model.left_out(variance))


def linear_leave_one_out() -> LinearLeaveOneOut:
    """Leave-one-out predictions of the linearised network, its own uncertainty included, in closed form.

    For normal likelihoods of one noise. Exact for linear networks.
    """
    return LinearLeaveOneOut()


def noise_by_evidence(joint: LogJoint, params: Params, batch: Batch) -> Likelihood:
    """A normal likelihood with the noise of the largest evidence of the linearised network, for :func:`path`.

    Args:
        joint: with a prior, and a normal likelihood.
        params: the mode.
        batch: the examples.
    """
    check_arguments(noise_by_evidence, locals())
    targets = np.asarray(batch.targets, np.float64)
    variance = linear_model(joint, params, batch).best_variance(float(np.var(targets, axis=0).mean()))
    return likelihoods.normal(float(np.sqrt(variance)))


def noise_variance(joint: LogJoint) -> float:
    """The variance of the noise of a normal likelihood: one number."""
    check_arguments(noise_variance, locals())
    likelihood: Any = joint.likelihood
    if likelihood.scale is None or jnp.size(likelihood.scale) != 1:
        raise ValueError("one noise for all outputs is needed; give likelihoods.normal(scale) one number")
    return float(jnp.reshape(likelihood.scale, ())) ** 2
