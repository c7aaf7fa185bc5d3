"""A chain of tasks: the posterior of each is the prior of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Data, Inference, Key, Likelihood, Net, Params
from bayestl.curvature import Builder, Kind, ggn, low_rank
from bayestl.gaussians import Gaussian, compress
from bayestl.infer._laplace import laplace
from bayestl.training import Transform, fit

_LOW_RANK = low_rank(20)


class Link(NamedTuple):
    """One task of a chain.

    Attributes:
        prior: what was known before the task.
        params: the mode after it.
        posterior: the Gaussian there.
        next_prior: the posterior, compressed and partly forgotten: what the next task starts from.
    """

    prior: Gaussian
    params: Params
    posterior: Gaussian
    next_prior: Gaussian


def chain_tasks(
    key: Key,
    net: Net,
    likelihood: Likelihood,
    prior: Gaussian,
    tasks: Sequence[Data],
    method: Callable[[LogJoint], Inference],
    *,
    steps: int,
    batch_size: int | None = None,
    curvature: Builder = _LOW_RANK,
    kind: Kind = ggn,
    rank: int | None = None,
    forgetting: float = 1.0,
    start: Params | None = None,
    transform: Transform | None = None,
    progress: bool = False,
) -> tuple[Link, ...]:
    """Learn tasks one after another, each from its own data alone: posterior, prior of the next task, posterior, ...

    For each task the mode under the current prior is found, from the mode before; Laplace's method makes a Gaussian
    around it; that, with at most ``rank`` columns (:func:`bayestl.gaussians.compress`) and with its precision
    multiplied by ``forgetting``, is the next prior. With diagonal curvature this is online elastic weight
    consolidation; on linear-normal models with dense or dual curvature and nothing forgotten the last posterior is that
    of all data together.

    To go on with a chain, call it again with the last ``next_prior`` as ``prior`` and the last ``params`` as ``start``.

    Args:
        key: randomness of the fits and of the curvature.
        net: the network of all tasks.
        likelihood: of all tasks.
        prior: before the first task.
        tasks: the training data of each, in order.
        method: log joint -> a method whose result has ``params``, such as
            ``lambda joint: btl.infer.map_estimate(joint, optax.adam(1e-3))``.
        steps: number of steps for each task.
        batch_size: examples per step, by default 64; all of a task that has fewer.
        curvature: the structure of the curvature, from ``bayestl.curvature``.
        kind: which curvature.
        rank: columns that a low-rank posterior keeps between tasks; None for all: ranks then add up over the tasks.
        forgetting: gamma, 0 < gamma <= 1, by which the precision is multiplied between tasks: after t more tasks a task
            counts gamma^t times. 1 forgets nothing.
        start: where the first fit starts; by default the parameters of ``net``.
        transform: ``(key, batch) -> batch``, augmentation, inside the compiled program.
        progress: show a progress bar for each fit.

    Returns:
        One :class:`Link` per task, in order.

    Raises:
        ValueError: no tasks, a forgetting factor out of range, a rank below 1; whatever ``fit`` and ``laplace`` raise.
        TypeError: a prior that is no Gaussian.

    Reference:
        Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks"; Ritter, Botev and Barber 2018,
        "Online Structured Laplace Approximations for Overcoming Catastrophic Forgetting"; the factor: Schwarz et al.
        2018, "Progress & Compress", section 3.2.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> tasks = [btl.data.arrays(jnp.ones((2, 1)), jnp.full(2, y)) for y in (2.0, 5.0)]
        >>> links = btl.infer.chain_tasks(
        ...     jax.random.key(0), net, btl.likelihoods.normal(1.0), prior, tasks,
        ...     lambda joint: btl.infer.map_estimate(joint, optax.sgd(0.3)), steps=100, curvature=btl.curvature.dense(),
        ... )
        >>> last = links[-1].posterior                                      # of all four: (2 + 2 + 5 + 5) / (4 + 1)
        >>> print(f"{last.mean['w'][0]:.3f} {last.variance['w'][0]:.3f}")
        2.800 0.200
    """
    check_arguments(chain_tasks, locals(), skip=("prior",))
    tasks = list(tasks)
    if not tasks:
        raise ValueError("tasks is empty; give the training data of one task or more")
    if not isinstance(prior, Gaussian):
        raise TypeError(f"prior is a {type(prior).__name__}; a chain goes from Gaussian to Gaussian")
    if not 0 < forgetting <= 1:
        raise ValueError(f"forgetting is {forgetting}; give a factor of the precision above 0, and at most 1")
    if rank is not None and rank < 1:
        raise ValueError(f"rank is {rank}; keep at least 1 column, or None for all")
    params, links = net.params if start is None else start, []
    for number, data in enumerate(tasks):
        of_fit, of_curvature = jax.random.split(jax.random.fold_in(key, number))
        joint = LogJoint(net, likelihood, prior, num_data=data.num_examples)
        fitted = fit(
            of_fit,
            method(joint),
            params,
            data,
            steps=steps,
            batch_size=None if batch_size is None else min(batch_size, data.num_examples),
            transform=transform,
            progress=progress,
        )
        params = fitted.params
        posterior: Any = laplace(of_curvature, joint, params, data, curvature=curvature, kind=kind)
        shorter = posterior if rank is None else compress(posterior, rank)
        links.append(Link(prior, params, posterior, shorter if forgetting == 1 else shorter.rescale(1 / forgetting)))
        prior = links[-1].next_prior
    return tuple(links)
