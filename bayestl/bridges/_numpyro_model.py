"""A log joint as a NumPyro model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpyro
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params
from bayestl.bridges._flat_gaussian import FlatGaussian
from bayestl.bridges._sites import Sites, sites_of
from bayestl.gaussians import Gaussian


# Compared by identity: it holds arrays.
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NumPyroModel:
    """A model that NumPyro's guides, kernels and handlers take. Made by :func:`numpyro_model`.

    Attributes:
        joint: the log joint.
        sites: which parameters make up which site.
    """

    joint: LogJoint
    sites: Sites

    def __call__(self, batch: Batch | None = None) -> Params:
        """Sample every site and score the batch; the parameters. Without a batch it is the prior alone."""
        values = {name: numpyro.sample(name, site) for name, site in self._priors().items()}
        params = self.to_params(values)
        if self.joint.prior is not None and not isinstance(self.joint.prior, Gaussian):
            numpyro.factor("log_prior", self.joint.prior.log_prob(params) / self.joint.temperature)
        if batch is not None:
            numpyro.factor("log_likelihood", self.joint.replace(prior=None)(params, batch))
        return params

    def to_params(self, values: Mapping[str, Any]) -> Params:
        """Values of the sites, vectors (..., d) by name, as parameters: leaves (..., *shape). Other names are left."""
        return self.sites.to_params(values)

    def to_values(self, params: Params) -> dict[str, jax.Array]:
        """Parameters, leaves (..., *shape), as values of the sites, vectors (..., d) by name."""
        return self.sites.to_values(params)

    def _priors(self) -> dict[str, dist.Distribution]:
        sizes = self.sites.sizes
        if not isinstance(self.joint.prior, Gaussian):
            flat = dist.constraints.real_vector
            return {name: dist.ImproperUniform(flat, (), (size,)) for name, size in sizes.items()}
        parts = self.joint.prior.rescale(self.joint.temperature).blocks()
        return {name: FlatGaussian(part) for name, part in zip(sizes, parts, strict=True)}

    def __repr__(self) -> str:
        return f"NumPyroModel({', '.join(map(self.sites.described, self.sites.names))})"


def numpyro_model(joint: LogJoint, like: Params | None = None) -> NumPyroModel:
    """A log joint as a NumPyro model, for any of NumPyro's guides, kernels and handlers.

    Each block of a Gaussian prior is one sample site, so low-rank priors keep their structure: ``theta``, or
    ``theta_0``, ``theta_1``, ... in the order of the blocks. A site is the flat vector of its leaves. Another prior, or
    the flat one, gives one improper site ``theta``; its density, if any, enters as a factor. So does the likelihood,
    scaled to the full data set; the network runs deterministically, with the state that ``joint`` holds.

    ``model density = kappa N mean_b log P(y_b | theta) / T + log N(theta; mu, T Sigma)``

    is ``joint(params, batch)`` up to a constant in theta that the prior's own normaliser at temperature T makes up:
    ``((D log 2pi + log det Sigma) (1 - T) / T - D log T) / 2``, which is 0 at T = 1. Priors that are not Gaussians have
    no such constant.

    The model takes the batch as an argument, ``model(batch)``: pass it on to ``svi.update`` or ``mcmc.run``, so that
    the data are not constants of the compiled program.

    Args:
        joint: the log joint.
        like: parameters, or any tree of their shapes. Needed unless the prior is a Gaussian, which knows them.

    Raises:
        ValueError: ``like`` is missing or is not what the prior is about.

    Example:
        >>> import numpyro
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=5)
        >>> model = btl.bridges.numpyro_model(joint)
        >>> batch = btl.Batch(jnp.ones((5, 2)), jnp.ones(5))
        >>> density, _ = numpyro.infer.util.log_density(model, (batch,), {}, model.to_values(net.params))
        >>> print(f"{density:.3f} {joint(net.params, batch):.3f}")
        -8.933 -8.933
    """
    check_arguments(numpyro_model, locals())
    if isinstance(joint.prior, Gaussian):
        mean = joint.prior.mean
        if like is not None:
            _tree.check_same_structure("like", like, "prior", mean, "give the parameters that the prior is about")
        return NumPyroModel(joint, sites_of(mean, joint.prior))
    if like is None:
        kind = "the flat prior" if joint.prior is None else f"a {type(joint.prior).__name__}"
        raise ValueError(f"the prior is {kind}, which does not know the parameters; pass like=net.params")
    _tree.check_floating("like", like)
    return NumPyroModel(joint, sites_of(_tree.at_least_float32(like)))
