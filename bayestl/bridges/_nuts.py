"""The no-U-turn sampler of NumPyro on a log joint: a reference posterior for heads and small networks."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro import infer as numpyro_infer

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._data_size import sized, warn_of_size
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Params
from bayestl.bridges._numpyro_model import NumPyroModel, numpyro_model
from bayestl.bridges._sites import Sites
from bayestl.passes import batches, whole
from bayestl.posteriors import Chain


class _Settings(NamedTuple):
    """The static part of a run."""

    joint: Static
    sites: Sites
    num_warmup: int
    num_samples: int
    num_chains: int
    target_accept_prob: float
    max_tree_depth: int
    dense_mass: bool


def nuts(
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data,
    *,
    num_warmup: int,
    num_samples: int,
    num_chains: int = 1,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    dense_mass: bool = False,
    progress: bool = True,
) -> Chain:
    """Samples from the posterior by the no-U-turn sampler, the reference to which approximations are compared.

    It is asymptotically exact but expensive: each sample takes up to 2^max_tree_depth passes over all the data. Use it
    for heads and small networks. The network runs deterministically, with the state that ``joint`` holds.

    Check the chains with :func:`bayestl.diagnostics.report` before you rely on them. All chains start at ``params``, so
    R-hat detects chains that drift apart, but not modes that none of them has visited.

    Args:
        key: randomness of the chains.
        joint: the target, tempered as it says.
        params: where the chains start.
        data: all the training data, one batch. It is an argument of the compiled program, not a constant in it.
        num_warmup: steps per chain that adapt step size and mass matrix and are thrown away, >= 0.
        num_samples: draws per chain, >= 1.
        num_chains: chains, side by side in one program, >= 1.
        target_accept_prob: mean acceptance probability to which the step size adapts, in (0, 1); raise it when
            trajectories diverge.
        max_tree_depth: a trajectory has at most 2^this - 1 steps.
        dense_mass: adapt a full mass matrix, (D, D), and not its diagonal alone: for strongly correlated parameters.
        progress: show a progress bar. Without it a second run on arrays of the same shapes compiles nothing.

    Returns:
        A :class:`~bayestl.posteriors.Chain`, chain after chain. Of every draw its ``stats`` say whether the trajectory
        to it diverged (``"diverging"``; such draws are among the others), and the mean acceptance probability along
        that trajectory (``"accept_prob"``).

    Raises:
        ValueError: numbers out of range; a start whose density is not finite; whatever ``joint.check`` raises.
        TypeError: data that are not in memory.

    Warns:
        UserWarning: data of more or fewer examples than ``num_data`` of the log joint.
        RuntimeWarning: trajectories that diverged.

    Reference:
        Hoffman and Gelman 2014, "The No-U-Turn Sampler"; NumPyro's variant draws from a trajectory by multinomial
        weights.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=3)
        >>> data = btl.data.arrays(jnp.ones((3, 1)), jnp.full(3, 2.0))
        >>> posterior = btl.bridges.nuts(
        ...     jax.random.key(0), joint, net.params, data, num_warmup=300, num_samples=2000, progress=False
        ... )
        >>> print(posterior.draws["w"].mean().round(1), posterior.draws["w"].var().round(1))
        1.5 0.2
    """
    check_arguments(nuts, locals(), skip=("data",))
    for name, value, least in (
        ("num_warmup", num_warmup, 0),
        ("num_samples", num_samples, 1),
        ("num_chains", num_chains, 1),
        ("max_tree_depth", max_tree_depth, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if not 0 < target_accept_prob < 1:
        raise ValueError(f"target_accept_prob is {target_accept_prob}; it must lie between 0 and 1")
    batch = whole(data)
    num_examples = batches(batch).total_weight()
    warn_of_size(joint, num_examples)
    joint = sized(joint, num_examples)
    joint.check(params, batch.inputs, batch.targets)
    params = _tree.at_least_float32(params)
    model = numpyro_model(joint, like=params)
    arrays, static = partition(joint)
    _check_start(static, arrays, params, batch)
    settings = _Settings(
        static, model.sites, num_warmup, num_samples, num_chains, target_accept_prob, max_tree_depth, dense_mass
    )
    # A progress bar needs the loop over draws outside of a program.
    run = partial(_run, progress=True) if progress else _compiled
    values, fields = run(settings, key, arrays, model.to_values(params), batch)
    draws = model.to_params({name: x.reshape(-1, x.shape[-1]) for name, x in values.items()})
    now = model.to_params({name: x[:, -1] for name, x in values.items()})
    stats = {name: x.reshape(-1) for name, x in fields.items()}
    chain = jnp.repeat(jnp.arange(num_chains), num_samples)
    posterior = Chain(draws, jnp.zeros(num_chains * num_samples), now, chain, stats)
    _warn_divergences(posterior)
    return posterior


def _run(
    settings: _Settings,
    key: Key,
    arrays: list[Any],
    start: dict[str, jax.Array],
    batch: Batch,
    *,
    progress: bool = False,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Values of the sites, (chains, draws, d), and of the sampler's fields, (chains, draws)."""

    # The joint's arrays and the batch are arguments of the model, which makes them arguments of NumPyro's program.
    def model(arrays: list[Any], batch: Batch) -> None:
        NumPyroModel(settings.joint.combine(arrays), settings.sites)(batch)

    kernel = numpyro_infer.NUTS(
        model,
        init_strategy=numpyro_infer.init_to_value(values=start),
        target_accept_prob=settings.target_accept_prob,
        max_tree_depth=settings.max_tree_depth,
        dense_mass=settings.dense_mass,
    )
    mcmc = numpyro_infer.MCMC(
        kernel,
        num_warmup=settings.num_warmup,
        num_samples=settings.num_samples,
        num_chains=settings.num_chains,
        chain_method="vectorized",
        progress_bar=progress,
        jit_model_args=True,
    )
    mcmc.run(key, arrays, batch, extra_fields=("diverging", "accept_prob"))
    return mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)


_compiled = jax.jit(_run, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _density(static: Static, arrays: list[Any], params: Params, batch: Batch) -> tuple[jax.Array, Params]:
    """The log density, and its gradient."""
    return jax.value_and_grad(static.combine(arrays))(params, batch)


def _check_start(static: Static, arrays: list[Any], params: Params, batch: Batch) -> None:
    value, gradient = _density(static, arrays, params, batch)
    if not bool(jnp.isfinite(value)):
        raise ValueError(f"the log density at params is {value}; chains must start where it is finite")
    _tree.check_finite("the gradient of the log density at params", gradient, "start elsewhere, as at the mode")


def _warn_divergences(posterior: Chain) -> None:
    diverging = posterior.stats["diverging"]
    if diverged := int(diverging.sum()):
        warnings.warn(
            f"{diverged} of {diverging.size} trajectories diverged, so parts of the posterior may be "
            "missing; raise target_accept_prob (0.95), or give a longer warm-up",
            RuntimeWarning,
            stacklevel=3,
        )
