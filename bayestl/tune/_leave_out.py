"""How each group of examples would have been predicted without it, in closed form from the fit of all data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Params, Selection
from bayestl.curvature import Builder
from bayestl.infer import condition
from bayestl.tune._criteria import Fitted, checked_groups, predicted_at
from bayestl.tune._left_out import LeftOut
from bayestl.tune._left_out_step import outputs_without
from bayestl.tune._linear_network import linear_network, mode, modes_without


@dataclasses.dataclass(frozen=True)
class LeaveOut:
    """Leave-group-out predictions in closed form. Made by :func:`leave_out`."""

    left_out: np.ndarray
    most_steps: int = 30
    curvature: Builder | None = None
    selection: Selection = None
    batch_size: int | None = None

    @property
    def groups(self) -> None:
        """No fits beside that of all data."""
        return None

    @property
    def has_gradient(self) -> bool:
        """Whether it has one in the scales of layers: in the dual, with more than one group."""
        return self.curvature is None and self.selection is None and not np.all(self.left_out == 0)

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """(M,) for the M examples that are left out at some time."""
        return self.predictions(key, joint, fitted, batch).log_probs

    def predictions(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> LeftOut:
        """Of each of these examples, without its group."""
        params: Params = fitted.params
        if self.selection is not None:
            conditioned = condition(joint, params, self.selection)
            joint, params = conditioned.joint, conditioned.params
        prior: Any = joint.prior
        rows = np.flatnonzero(self.left_out >= 0)
        if np.all(self.left_out == 0):
            return predicted_at(joint, prior.mean, batch)
        if self.curvature is not None:
            space, outputs = outputs_without(key, joint, params, batch, self.left_out, self.curvature, self.batch_size)
            return LeftOut(rows, outputs[rows], None, space.log_probs(outputs[None])[0][rows])
        network = linear_network(joint, params, batch)
        whole_mode = mode(network, self.most_steps)
        without = network.outputs(modes_without(network, whole_mode, self.left_out, self.most_steps))
        place = self.left_out[rows], rows
        return LeftOut(rows, without[place], None, network.space.log_probs(without)[place])


def leave_out(
    groups: Any,
    *,
    most_steps: int = 30,
    curvature: Builder | None = None,
    selection: Selection = None,
    batch_size: int | None = None,
) -> LeaveOut:
    """Predictions of every group of examples without it, in closed form from the fit of all data.

    The network is made linear where it has come to, and without each group its mode is found anew, by Newton's method
    in the dual: matrices of N C numbers a side, in float64 on the host. Exact where the network is linear, whatever the
    parameters: they need not be a mode. A group of all examples leaves nothing, and is predicted at the prior's mean.

    For more examples than that, give a ``curvature``: one Newton step from the parameters without the group, ``theta +
    Sigma grad`` with Sigma the covariance of the Laplace posterior of the others with that curvature: one such
    posterior for each group. It is exact for linear networks with normal noise under dense curvature; for classes one
    step is too cautious, and the more so the less the curvature sees of what ties parameters together.

    Args:
        groups: (N,) group numbers, as :func:`groups_by_class` and :func:`random_groups` give; -1 for never left out.
        most_steps: Newton's steps in the dual, which end before where they gain nothing: after one where the likelihood
            is normal.
        curvature: of the Laplace posterior, from ``bayestl.curvature``: ``dense()`` for a last layer, ``kronecker()``
            or ``low_rank(r)`` for whole networks; None for the dual.
        selection: path patterns of the parameters that move when a group is left out, such as ``"head/**"``; the others
            stay as they are, and must be parameters that the fit does not move either: features that have seen an
            example predict it too well. None for all.
        batch_size: examples seen at once by the curvature; None for all.

    Raises:
        ValueError: groups that are not (N,) whole numbers, 0 among them; no step.

    Reference:
        For one example at a time the step is the approximate leave-one-out of Rad and Maleki 2020, "A scalable estimate
        of the out-of-sample prediction error via approximate leave-one-out cross-validation".

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(
        ...     net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, scale=1.0), num_data=2
        ... )
        >>> batch = btl.Batch(jnp.ones((2, 1)), jnp.array([1.0, 2.0]))
        >>> criterion = btl.tune.leave_out([0, 1])
        >>> mode = {"w": jnp.ones(1)}
        >>> scores = criterion(jax.random.key(0), joint, btl.tune.Fitted(mode, None), batch)
        >>> print(scores.round(4), f"{jax.scipy.stats.norm.logpdf(1.0, 1.0, 1.0):.4f}")
        [-0.9189 -2.0439] -0.9189
    """
    check_arguments(leave_out, locals())
    if most_steps < 1:
        raise ValueError(f"most_steps is {most_steps}; one step at least is needed")
    return LeaveOut(checked_groups(groups), most_steps, curvature, selection, batch_size)
