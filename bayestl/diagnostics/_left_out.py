"""How much of the curvature at its mean a Gaussian approximation leaves out."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments, check_at_least
from bayestl._condition import of_part
from bayestl._data_size import sized, warn_of_size
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
    the whole curvature at its mean, of which only products are needed. At 0 nothing is missing (dense and dual
    curvature). At c, there is a direction in which the precision from data and prior is 1 + c times the posterior's,
    so the posterior's variance there is too large by that factor. For ``curvature.low_rank(r)`` it is the (r + 1)-th
    eigenvalue of the curvature relative to the prior: above 1, the data outweigh the prior in a direction in which the
    posterior is no narrower than the prior. For diagonal and Kronecker curvature it is what ignoring correlations
    costs. Precision lost to rounding counts too.

    Computed by Lanczos' method, which approaches the value from below; each step takes three passes over the data.

    Args:
        key: for sampled labels, as in ``laplace``, and for the start of Lanczos' method.
        joint: the target, its prior a Gaussian or None.
        posterior: a Gaussian at a mode, from :func:`bayestl.infer.laplace`; or one of a part of the parameters.
        data: the training data, as for ``laplace``.
        kind: the curvature that the posterior was made from; if its labels were sampled, give the same key and batch
            size as well.
        num_steps: Lanczos steps, >= 1. Memory: two copies of the parameters per step.
        batch_size: examples at a time.

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
    check_arguments(left_out, locals())
    check_at_least(1, num_steps=num_steps)
    joint, gaussian = of_part(joint, posterior)
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"a {type(posterior).__name__} has no precision to compare curvature with; give a Gaussian")
    passes = batches(data, batch_size)
    warn_of_size(joint, passes.total_weight())
    joint = sized(joint, passes.total_weight())
    arrays, static = partition((joint, gaussian, kind))
    steps = min(num_steps, _tree.size(gaussian.mean))
    return float(passes.run(_largest, static, steps, arrays, key, passes))


@partial(jax.jit, static_argnums=(0, 1))
def _largest(static: Static, num_steps: int, arrays: list[Any], key: Key, passes: Batches) -> jax.Array:
    joint, gaussian, kind = static.combine(arrays)
    # The linearised network may take as much memory as the Lanczos steps do.
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
