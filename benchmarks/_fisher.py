"""Fisher information as the shape of a prior."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import bayestl as btl

# A weight that the Fisher information does not see has at most 1 / FISHER_FLOOR times the variance of an average one.
FISHER_FLOOR = 0.1


def fisher_diagonal(net: btl.Net, data: Any, key: Any, batch_size: int = 16) -> Any:
    """``E[(d log p(y | x, theta) / d theta)^2]`` per picture, with y drawn from the network itself: EWC's diagonal."""
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=data.num_examples)

    @jax.jit
    def added(total: Any, key: Any, pictures: jax.Array) -> Any:
        drawn = jax.random.categorical(key, net(net.params, pictures))

        def squared(picture: jax.Array, label: jax.Array) -> Any:
            one = btl.Batch(picture[None], label[None])
            gradient = jax.grad(lambda params: joint.log_likelihoods(params, one)[0])(net.params)
            return jax.tree.map(jnp.square, gradient)

        return jax.tree.map(lambda t, x: t + x.sum(0), total, jax.vmap(squared)(pictures, drawn))

    total, batches = btl.tree.zeros_like(net.params), data.num_examples // batch_size
    for number in range(batches):
        pictures = data.inputs[number::batches][:batch_size]
        total = added(total, jax.random.fold_in(key, number), pictures)
    return btl.tree.scale(1 / (batches * batch_size), total)


def fisher_prior(fisher: Any, centre: Any, scale: Any) -> Any:
    """Around the published weights, ``scale^2 / (floor + F_i / mean F)``: free where the source did not care."""
    ours = set(btl.tree.paths(centre))
    fisher = btl.tree.select_where(fisher, lambda path: path in ours and not path.startswith("head/"))
    average = sum(x.sum() for x in jax.tree.leaves(fisher)) / btl.tree.size(fisher)
    variances = jax.tree.map(lambda f: scale**2 / (FISHER_FLOOR + f / average), fisher)
    mean = btl.tree.restructure(btl.tree.by_paths(centre), fisher)
    return btl.gaussians.diagonal(mean, variances)
