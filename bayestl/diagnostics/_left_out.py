"""What a Gaussian approximation does not have of the curvature at its mean."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_key
from bayestl._condition import of_part
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Key, Params, Posterior
from bayestl.curvature import Kind, ggn, lanczos, product
from bayestl.gaussians import Gaussian
from bayestl.passes import Batches, batches


def left_out(
    key: Key,
    joint: LogJoint,
    posterior: Posterior,
    data: Any,
    *,
    kind: Kind = ggn,
    num_steps: int = 20,
    batch_size: int = 64,
) -> float:
    """The largest curvature that a Laplace posterior leaves out, in units of its own precision.

    The largest eigenvalue of ``S^T (kappa H + Sigma0^-1) S / T - I``, with ``S S^T`` the posterior's covariance and H
    the whole curvature at its mean, known by its products alone. At 0 nothing is missing (dense and dual curvature). A
    value c says that in some direction data and prior know 1 + c times as much as the posterior says, which is that
    much too wide there. Of ``curvature.low_rank(r)`` it is the (r + 1)-th eigenvalue of the curvature as the prior sees
    it: above 1, the data outweigh the prior in a direction that was left as the prior has it. Of diagonal and Kronecker
    curvature it is what they lose by leaving correlations out. Precisions that rounding has cut off are seen too.

    Found by Lanczos' method, from below: each step is three passes over the data.

    Args:
        key: of sampled labels, as for ``laplace``, and of Lanczos' start.
        joint: the target, its prior a Gaussian or None.
        posterior: a Gaussian at a mode, from :func:`bayestl.infer.laplace`; or that of a part of the parameters.
        data: the training data, as for ``laplace``.
        kind: the curvature that the posterior was made from; with sampled labels, give the key and the batch size of
            then too.
        num_steps: Lanczos steps, >= 1. Memory: two copies of the parameters for each.
        batch_size: examples seen at once.

    Raises:
        TypeError: a posterior that is not a Gaussian.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=3)
        >>> data, key = btl.data.arrays(jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.zeros(3)), jax.random.key(0)
        >>> for rank in (1, 2):
        ...     structure = btl.curvature.low_rank(rank)  # of the eigenvalues 9, 4, 1
        ...     posterior = btl.infer.laplace(key, joint, net.params, data, curvature=structure)
        ...     print(f"{btl.diagnostics.left_out(key, joint, posterior, data):.3f}")
        4.000
        1.000
    """
    check_key("left_out", key)
    joint, gaussian = of_part(joint, posterior)
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"a {type(posterior).__name__} has no precision to compare curvature with; give a Gaussian")
    passes = batches(data, batch_size)
    arrays, static = partition((joint, gaussian, kind))
    steps = min(num_steps, _tree.size(gaussian.mean))
    return float(passes.run(_largest, static, steps, arrays, key, passes))


@partial(jax.jit, static_argnums=(0, 1))
def _largest(static: Static, num_steps: int, arrays: list[Any], key: Key, passes: Batches) -> jax.Array:
    joint, gaussian, kind = static.combine(arrays)
    # The linearised network may take as much memory as the steps do.
    held = num_steps * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(gaussian.mean))
    curvature = product(joint, kind, gaussian.mean, key, passes, held)
    dtype = jnp.result_type(*jax.tree.leaves(gaussian.mean))
    weight = jnp.asarray(joint.kappa * joint.num_data / passes.total_weight(), dtype)
    transposed = jax.linear_transpose(gaussian.unwhiten, gaussian.mean)

    def relative(v: Params) -> Params:
        u = gaussian.unwhiten(v)
        image = _tree.scale(weight, curvature(u))
        if joint.prior is not None:
            image = _tree.add(image, joint.prior.precision_mv(u))
        return _tree.scale(1 / jnp.asarray(joint.temperature, dtype), transposed(image)[0])

    eigenpairs = lanczos(jax.random.split(key)[0], relative, gaussian.mean, num_steps)
    return jnp.maximum(eigenpairs.eigenvalues[-1] - 1, 0)
