"""The log joint density of one target task: the hinge between building a model and doing inference in it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import _tree, likelihoods
from bayestl._applied import call_network
from bayestl._arguments import check_arguments
from bayestl._part import completed, like_given, moving
from bayestl._types import Apply, Batch, Inputs, Key, Likelihood, Net, Params, Prior, Scalar, Targets
from bayestl.gaussians import Gaussian
from bayestl.passes import check_weights
from bayestl.posteriors import Part

_OWN_PRIOR = "give the new head its own prior with gaussians.by_path"


class LossTerms(NamedTuple):
    """What a loss is made of.

    Attributes:
        nll: mean negative log likelihood over the batch, nats per example.
        log_prior: log prior in nats, for Gaussians without the normaliser, which in float32 would drown the rest.
        state: the network's state after this batch.
    """

    nll: jax.Array
    log_prior: jax.Array
    state: Any


@jax.tree_util.register_pytree_with_keys_class
class LogJoint:
    """``log P(D, theta) = (kappa log P(D | theta) + log P(theta)) / T`` for one network, likelihood, prior, data size.

    The only place that knows how many examples there are, how many of them a batch holds, and any tempering. All
    densities are in nats of the full data set, estimated from a batch as N / (examples in it) times their sum, where
    each example counts as often as its weight says.

    Args:
        net: the network; its ``params`` fix the structure, its ``state`` is where every evaluation starts.
        likelihood: raw outputs -> numpyro distribution with batch shape (B,); see ``bayestl.likelihoods``. A plain
            function is taken as it is.
        prior: a :class:`~bayestl.Prior` over the parameters, or None for the flat one.
        num_data: N, the number of distinct training examples; augmented copies do not count. By default that of the
            data which a method is given: by ``fit``, ``fit_many``, ``laplace`` and its kin. What has no data set to ask
            (the log joint called by itself, the bridges) needs the number.
        kappa: power of the likelihood, >= 0; 0 is "no data".
        temperature: T > 0 of the posterior; below 1 is a cold posterior.
        allow_other_size: whether N may be another number than the data have, without a warning: for a run on a part of
            the data, or on augmented copies.

    Raises:
        ValueError: prior and parameters that differ, or numbers out of range.
        TypeError: a prior without ``log_prob``.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=10)
        >>> batch = btl.Batch(inputs=jnp.ones((5, 2)), targets=jnp.zeros(5))
        >>> print(f"{joint(net.params, batch):.3f}")
        -11.027
    """

    prior: Prior | None
    likelihood: Likelihood
    num_data: Any
    kappa: Any
    temperature: Any
    state: Any
    apply: Apply
    paths: tuple[str, ...]
    """The paths of the parameters that it is about."""
    allow_other_size: bool

    def __init__(
        self,
        net: Net,
        likelihood: Likelihood,
        prior: Prior | None,
        *,
        num_data: Scalar | None = None,
        kappa: Scalar = 1.0,
        temperature: Scalar = 1.0,
        allow_other_size: bool = False,
    ):
        check_arguments(LogJoint.__init__, locals(), skip=("likelihood", "prior"))
        _tree.check_floating("net.params", net.params)
        _check_prior(prior, net.params)
        if num_data is not None:
            _check_number("num_data", num_data, lambda x: x > 0, "the number of training examples, at least 1")
        _check_number("kappa", kappa, lambda x: x >= 0, "a power of the likelihood, 0 or more")
        _check_number("temperature", temperature, lambda x: x > 0, "a number above 0")
        self.prior = prior
        self.likelihood = _as_likelihood(likelihood)
        self.num_data, self.kappa, self.temperature = (
            None if x is None else jnp.asarray(x, jnp.result_type(float)) for x in (num_data, kappa, temperature)
        )
        self.state, self.apply = net.state, net.apply
        self.paths = tuple(_tree.paths(net.params))
        self.allow_other_size = bool(allow_other_size)

    def tree_flatten_with_keys(self):
        """Leaves and static parts, for JAX."""
        names = ("prior", "likelihood", "num_data", "kappa", "temperature", "state")
        return [(jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names], self._static()

    @classmethod
    def tree_unflatten(cls, static, children) -> LogJoint:
        """Rebuilt without checks: JAX passes tracers and placeholders here."""
        joint = object.__new__(cls)
        joint.prior, joint.likelihood, joint.num_data, joint.kappa, joint.temperature, joint.state = children
        joint.apply, joint.paths, joint.allow_other_size = static
        return joint

    def _static(self) -> tuple[Apply, tuple[str, ...], bool]:
        return self.apply, self.paths, self.allow_other_size

    def replace(self, **changes: Any) -> LogJoint:
        """The same log joint with other leaves: prior, likelihood, num_data, kappa, temperature, state. Unchecked.

        A state may lack what the network holds fixed, as that of a run does; it stays as it is.
        """
        children, static = self.tree_flatten_with_keys()
        values = {key.name: value for key, value in children}
        unknown = sorted(set(changes) - set(values))
        if unknown:
            raise TypeError(f"LogJoint.replace got {unknown}; it can exchange {sorted(values)}")
        if "state" in changes:
            changes["state"] = completed(self.apply, changes["state"], self.state)
        return LogJoint.tree_unflatten(static, [*{**values, **changes}.values()])

    def with_network(self, apply: Apply, state: Any, paths: tuple[str, ...]) -> LogJoint:
        """The likelihood with another network, for predictions: without a prior, and unchecked."""
        children = [None, self.likelihood, self.num_data, self.kappa, self.temperature, state]
        return LogJoint.tree_unflatten((apply, paths, self.allow_other_size), children)

    def __call__(self, params: Params, batch: Batch, *, key: Key | None = None, state: Any = None) -> jax.Array:
        """``(kappa log likelihood + log prior) / T``, nats of the full data set, estimated from ``batch``.

        Args:
            params: parameters.
            batch: B examples; where all weights are 0 the log prior alone.
            key: randomness of the network (dropout); None for the deterministic network.
            state: the network's state; None for the one given at construction.
        """
        check_arguments(LogJoint.__call__, locals())
        mean, _ = self._mean_log_likelihood(params, batch, key, state)
        log_prior = 0.0 if self.prior is None else self.prior.log_prob(params)
        return (self.kappa * self._size() * mean + log_prior) / self.temperature

    def log_likelihoods(self, params: Params, batch: Batch, *, key: Key | None = None, state: Any = None) -> jax.Array:
        """``log p(target_i | input_i, theta)``, (B,), nats; neither scaled, tempered nor weighted."""
        check_arguments(LogJoint.log_likelihoods, locals())
        return self._log_likelihoods(params, batch, key, state)[0]

    def scorer(self) -> Partial:
        """:meth:`log_likelihoods` as a pytree, for ``Inference.log_likelihoods``; the prior is not a part of it."""
        return Partial(LogJoint.log_likelihoods, self.replace(prior=None))

    @property
    def moving_state(self) -> Any:
        """The network's state with None in the place of parameters that it holds fixed: what a run carries along.

        Wherever a state is an argument, those of the log joint itself take that place.
        """
        return moving(self.apply, self.state)

    @property
    def effective_num_data(self) -> jax.Array:
        """``kappa N / T``, the number of data that the tempered likelihood counts; N / T at kappa = 0."""
        return jnp.where(self.kappa > 0, self.kappa, 1.0) * self._size() / self.temperature

    def loss(
        self, params: Params, batch: Batch, *, key: Key | None = None, state: Any = None
    ) -> tuple[jax.Array, LossTerms]:
        """What an optimizer sees: ``-(log likelihood + log prior / kappa) / N``, per effective datum; no constants.

        Its minimiser is the MAP at every T, and learning rates survive a change of N, kappa and T. At kappa = 0, where
        there is no datum to count by, it is ``-log prior / N``.

        Returns:
            The loss, and its :class:`LossTerms`.
        """
        check_arguments(LogJoint.loss, locals())
        mean, state = self._mean_log_likelihood(params, batch, key, state)
        log_prior = self.log_prior_energy(params)
        weight = jnp.where(self.kappa > 0, self.kappa, 1.0)
        loss = -(self.kappa * mean + log_prior / self._size()) / weight
        return loss, LossTerms(-mean, log_prior, state)

    def _size(self) -> Any:
        if self.num_data is None:
            raise ValueError(
                "num_data was not given to LogJoint, and there is no data set here to take it from; give the number of "
                "training examples, LogJoint(..., num_data=...)"
            )
        return self.num_data

    def log_prior_energy(self, params: Params) -> jax.Array:
        """The log prior up to a constant: for Gaussians ``-1/2 (theta - mu)^T Sigma^-1 (theta - mu)``; 0 when flat."""
        if self.prior is None:
            return jnp.zeros(())
        if isinstance(self.prior, Gaussian):
            return -0.5 * self.prior.squared_mahalanobis(params)
        return self.prior.log_prob(params)

    def outputs(self, params: Params, inputs: Inputs, *, key: Key | None = None, state: Any = None) -> tuple[Any, Any]:
        """Raw outputs and the network's new state, which holds what the given one does."""
        given = self.state if state is None else state
        whole = completed(self.apply, given, self.state)
        outputs, new = call_network(lambda: self.apply(params, whole, inputs, key), params, inputs)
        return outputs, like_given(self.apply, new, given)

    def check(self, params: Params, inputs: Inputs, targets: Targets, weights: Any = None) -> likelihoods.TargetCheck:
        """Check parameters and a whole data set against this log joint, before anything is compiled.

        Args:
            params: the parameters a run starts from.
            inputs: all inputs, leading axis N.
            targets: all targets, leading axis N.
            weights: None, or (N,), how often each example counts.

        Returns:
            The check of targets alone, for those that are read later.

        Raises:
            ValueError: parameters that the prior is not about; outputs whose likelihood has no batch shape (B,);
                targets of the wrong shape, or outside the likelihood's support; negative or non-finite weights.
            TypeError: parameters or labels of the wrong dtype.
        """
        check_arguments(LogJoint.check, locals())
        _tree.check_floating("params", params)
        _check_prior(self.prior, params, "params")
        if weights is not None:
            check_weights(weights, jax.tree.leaves(inputs)[0].shape[0])
        self.check_paths("params", params)
        if isinstance(self.prior, Part):
            self.prior.log_prob(params)  # which says that there is none
        shapes = jax.eval_shape(lambda p, x: self.outputs(p, x)[0], params, inputs)
        likelihoods.check_shapes(self.likelihood, shapes, targets, weights)
        check = likelihoods.target_check(self.likelihood, shapes)
        check(targets, weights)
        return check

    def check_paths(self, name: str, params: Params) -> None:
        """Raise a ``ValueError`` when ``params`` are not the parameters that this log joint is about."""
        have, own = set(_tree.paths(params)), set(self.paths)
        if have == own:
            return
        extra, missing = sorted(have - own), sorted(own - have)
        if missing:
            what = f"{_tree.shown(missing, 4)} is missing from {name}, which has {_tree.shown(sorted(have), 4)}"
        else:
            what = f"{name} has {_tree.shown(extra, 4)} too"
        raise ValueError(
            f"{name} and the log joint are of different parameters: {what}; it is about {_tree.shown(sorted(own), 4)} "
            "(of a log joint that holds some fixed, the parameters are those that infer.condition or nets.freeze gave)"
        )

    def _log_likelihoods(self, params, batch, key, state) -> tuple[jax.Array, Any]:
        outputs, state = self.outputs(params, batch.inputs, key=key, state=state)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs)
        likelihoods.check_shapes(self.likelihood, shapes, batch.targets, batch.weights)
        return self.likelihood(outputs).log_prob(batch.targets), state

    def _mean_log_likelihood(self, params, batch, key, state) -> tuple[jax.Array, Any]:
        if batch.weights is None:
            each, state = self._log_likelihoods(params, batch, key, state)
            return jnp.mean(each), state
        check_weights(batch.weights, jnp.shape(batch.weights)[0])
        each, state = self._log_likelihoods(params, _without_padding(batch), key, state)
        weights = jnp.asarray(batch.weights).astype(each.dtype)
        count = jnp.sum(weights)
        # No example at all counts 0.
        weighted = jnp.sum(jnp.where(weights > 0, each, 0) * weights)
        return weighted / jnp.where(count > 0, count, 1), state

    def __repr__(self) -> str:
        return (
            f"LogJoint(prior={self.prior!r}, likelihood={self.likelihood!r}, num_data={self.num_data}, "
            f"kappa={self.kappa}, temperature={self.temperature})"
        )


def _without_padding(batch: Batch) -> Batch:
    """The batch with its padding overwritten by its first real example (by zeros where there is none).

    Padding may hold anything. A NaN there, even when its log likelihood is left out of the sum, would reach the
    gradient as zero times NaN.
    """
    real = jnp.asarray(batch.weights) > 0

    def overwritten(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        first = jnp.where(jnp.any(real), x[jnp.argmax(real)], jnp.zeros_like(x[0]))
        return jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, first)

    return Batch(jax.tree.map(overwritten, batch.inputs), jax.tree.map(overwritten, batch.targets), batch.weights)


def _check_prior(prior: Prior | None, params: Params, name: str = "params") -> None:
    if prior is None:
        return
    if not callable(getattr(prior, "log_prob", None)):
        raise TypeError(
            f"prior is a {type(prior).__name__} without log_prob; give a Gaussian, or None for the flat prior"
        )
    if isinstance(prior, Gaussian | Part):
        _tree.check_same_structure("prior", prior.mean, name, params, _OWN_PRIOR)


def _as_likelihood(likelihood: Likelihood) -> Any:
    if not callable(likelihood):
        raise TypeError(f"likelihood is a {type(likelihood).__name__}; give one of bayestl.likelihoods, or a function")
    if jax.tree.structure(likelihood) != jax.tree.structure(0):
        return likelihood
    # A plain function would be a leaf that is no array; wrapped, it is static.
    function: Any = likelihood
    return likelihoods.from_function(function)


def _check_number(name: str, value: Any, holds: Any, requirement: str) -> None:
    if not _tree.is_concrete(value):
        return
    if jnp.ndim(value) != 0 or not math.isfinite(value) or not holds(float(value)):
        raise ValueError(f"{name} is {value}; it must be {requirement}")
