"""Where the data fight the prior: how far every layer has moved, in units of what its prior expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians import Gaussian


class LayerConflict(NamedTuple):
    """How far one layer has moved from the mean of its prior.

    Attributes:
        layer: its name, or the pattern that it was given by.
        size: D, its number of parameters.
        mahalanobis: squared distance of the mode from the prior's mean in units of the prior, over D; 1 for a typical
            draw of the prior. It is also the number by which the prior's covariance would have to be multiplied for the
            mode to be typical.
        moved: root of the mean squared movement, in the units of the parameters.
        scale: root of the mean prior variance, in the same units.
        inside: share of the movement that lies within the columns of a prior with a low-rank part, in units of its
            base; NaN for a prior without one.
        expected_inside: the same for draws of the prior, on average: what is inside less moves against the source.
        determined: the number of directions in which the data decide and not the prior; NaN without a posterior.
    """

    layer: str
    size: int
    mahalanobis: float
    moved: float
    scale: float
    inside: float
    expected_inside: float
    determined: float

    @property
    def tension(self) -> float:
        """Squared movement per direction that the data determine: above 1 the evidence asks for a wider prior here."""
        return self.mahalanobis * self.size / self.determined if self.determined > 0 else math.nan


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Layer by layer, how the data and the prior get on; printed, a table.

    Attributes:
        layers: one entry per layer, in the order of the parameters.
    """

    layers: tuple[LayerConflict, ...]

    @property
    def worst(self) -> LayerConflict:
        """The layer with the largest tension, where there is a posterior; otherwise with the largest distance."""
        return max(self.layers, key=lambda layer: layer.mahalanobis if math.isnan(layer.tension) else layer.tension)

    def __str__(self) -> str:
        width = max(len("layer"), *(len(layer.layer) for layer in self.layers))
        has_columns = any(not math.isnan(layer.inside) for layer in self.layers)
        has_posterior = any(not math.isnan(layer.determined) for layer in self.layers)
        heads = [f"{'layer':<{width}}", f"{'D':>9}", "distance^2/D", "    moved", "prior scale"]
        heads += ["inside (expected)"] if has_columns else []
        heads += ["determined", " tension"] if has_posterior else []
        lines = ["  ".join(heads)]
        for each in self.layers:
            cells = [f"{each.layer:<{width}}", f"{each.size:>9,}", f"{each.mahalanobis:>12.3g}"]
            cells += [f"{each.moved:>9.3g}", f"{each.scale:>11.3g}"]
            cells += [f"{each.inside:>6.2f} ({each.expected_inside:.2f})".ljust(17)] if has_columns else []
            cells += [f"{each.determined:>10.3g}", f"{each.tension:>8.3g}"] if has_posterior else []
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def conflict(
    prior: Gaussian, params: Params, *, posterior: Gaussian | None = None, layers: Sequence[str] | None = None
) -> Conflict:
    """Which layers fight the source: how far each has moved from its prior, in units of what that expected.

    Of layer l with prior marginal N(mu, S0): ``(theta - mu)^T S0^-1 (theta - mu) / D``. Where a Laplace posterior is
    given too, with covariance S, the data determine ``gamma = D - tr(S0^-1 S)`` directions, and the derivative of the
    log evidence in the log of a variance that multiplies S0 is half of ``(theta - mu)^T S0^-1 (theta - mu) - gamma``:
    where the *tension*, their ratio, is above 1, the evidence asks for a wider prior in that layer, and below for a
    narrower one. (For layers that are independent under the prior, to the accuracy of Laplace's method.)

    Args:
        prior: over the parameters.
        params: the mode under that prior.
        posterior: around it, of :func:`bayestl.infer.laplace`; or None.
        layers: patterns of paths, one per layer; by default a layer is what shares its path but for the last key.

    Raises:
        TypeError: a prior or posterior that is no Gaussian.
        ValueError: structures that differ, a pattern that matches nothing.

    Reference:
        The effective number of parameters gamma and its place in the evidence: MacKay 1992, "Bayesian Interpolation",
        section 4.3. Distances of this kind as a check of priors: Box 1980, "Sampling and Bayes' inference in scientific
        modelling and robustness".

    Example:
        >>> prior = btl.gaussians.isotropic({"body": {"w": jnp.zeros(4)}, "head": {"w": jnp.zeros(4)}}, scale=0.5)
        >>> mode = {"body": {"w": jnp.full(4, 0.1)}, "head": {"w": jnp.full(4, 2.0)}}
        >>> print(btl.transferability.conflict(prior, mode))
        layer          D  distance^2/D      moved  prior scale
        body           4          0.04        0.1          0.5
        head           4            16          2          0.5
    """
    check_arguments(conflict, locals(), skip=("prior", "posterior"))
    if not isinstance(prior, Gaussian):
        raise TypeError(f"prior is a {type(prior).__name__}; distances from it need a Gaussian")
    if posterior is not None and not isinstance(posterior, Gaussian):
        raise TypeError(f"posterior is a {type(posterior).__name__}; give the Gaussian of infer.laplace, or None")
    _tree.check_same_structure("params", params, "prior", prior.mean, "give the mode under this very prior")
    if posterior is not None:
        _tree.check_same_structure("posterior", posterior.mean, "prior", prior.mean, "give the one under this prior")
    params = jax.tree.map(jnp.asarray, params)
    parts = _layers(prior.mean, layers)
    return Conflict(tuple(_one(name, part, prior, params, posterior) for name, part in parts.items()))


def _layers(tree: Params, patterns: Sequence[str] | None) -> dict[str, Params]:
    if patterns is not None:
        return {pattern: _tree.select(tree, pattern) for pattern in patterns}
    return {
        layer: _tree.select_where(tree, set(paths).__contains__) for layer, paths in _tree.paths_by_layer(tree).items()
    }


def _one(name: str, part: Params, prior: Gaussian, params: Params, posterior: Gaussian | None) -> LayerConflict:
    marginal = prior.restrict(part)
    movement = _tree.sub(_tree.like_selection(params, part), marginal.mean)
    size = _tree.size(marginal.mean)
    inside, expected = _inside(marginal, movement)
    determined = math.nan
    if posterior is not None:
        after = posterior.restrict(part)
        spread = marginal.precision_trace(after.variance, lambda v: _tree.vdot(v, after.covariance_mv(v)))
        determined = size - float(spread)
    return LayerConflict(
        name,
        size,
        float(marginal.precision_quadratic(movement)) / size,
        math.sqrt(float(_tree.squared_norm(movement)) / size),
        math.sqrt(sum(float(jnp.sum(v)) for v in jax.tree.leaves(marginal.variance)) / size),
        inside,
        expected,
        determined,
    )


def _inside(marginal: Gaussian, movement: Params) -> tuple[float, float]:
    """The share of the movement within the columns, and that of draws of the marginal; all blocks together."""
    squared, total, own, everything, any_columns = 0.0, 0.0, 0.0, 0.0, False
    for block in marginal.blocks():
        base, columns = block.without_columns()
        white = base.whiten(_tree.restructure(_tree.by_paths(movement), block.mean))
        length, size = float(_tree.squared_norm(white)), _tree.size(block.mean)
        total, everything = total + length, everything + size
        if columns is None:
            continue
        any_columns = True
        along = _tree.columns_dot(columns.basis, white)
        squared += float(jnp.sum(along**2))
        own += float(jnp.sum(1 + columns.eigenvalues))
        everything += float(jnp.sum(columns.eigenvalues))
    if not any_columns:
        return math.nan, math.nan
    return (squared / total if total else math.nan), own / everything
