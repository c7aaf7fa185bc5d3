"""What a curvature is, and what builds one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax

from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params, Scalar
from bayestl.curvature._kinds import Kind
from bayestl.gaussians import Gaussian


@runtime_checkable
class Curvature(Protocol):
    """The curvature H of ``-log p(D | theta)`` at some parameters, summed over all data, in some structure.

    A frozen dataclass and pytree. Neither kappa nor T nor the prior are in it yet: ``power`` (kappa) and
    ``temperature`` (T) are handed over where H meets the prior. H is positive semi-definite. Vectors are trees like
    the parameters; with a selection of parameters they have ``None`` at the leaves left out, and so has the prior.
    """

    def mv(self, v: Params) -> Params:
        """``H v``."""
        ...

    def precision_update(self, prior: Gaussian | None, params: Params, power: Scalar, temperature: Scalar) -> Gaussian:
        """The Gaussian at mean ``params`` with precision ``(power H + Sigma0^-1) / temperature``.

        Works under jit. ``prior=None`` is the flat prior: for structures whose H can be inverted.

        Raises:
            ValueError: a prior with which this structure has no closed form; a flat prior where H has no inverse by
                its structure. A numerical failure (not positive definite) is left as NaN under jit; the caller, who
                sees concrete values, looks for it.
        """
        ...

    def log_det_ratio(self, prior: Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``, a scalar >= 0: half of it is what the evidence pays for fitting.

        Not a difference of two log determinants, which float32 could not resolve.
        """
        ...


class Builder(Protocol):
    """Makes a curvature from a log joint at some parameters: what ``curvature.dense()`` and the like give.

    Called inside ``jit`` (key, joint, params and data are then traced; sizes are static), so that it must not look at
    values. A builder is a ``jax.tree_util.Partial`` of a module-level function, or a frozen, hashable dataclass, so
    that equal builders share one compiled program.
    """

    def __call__(
        self, key: Key, joint: LogJoint, params: Params, data: Data | Batch, kind: Kind, batch_size: int
    ) -> Curvature:
        """H at ``params``.

        Args:
            key: of the kind (sampled labels) and of the structure (random start of Lanczos).
            joint: the network (``joint.outputs(params, inputs)``, deterministic), its state and likelihood; its prior
                where the structure depends on it. A selection of parameters is already taken care of: ``params`` then
                has ``None`` at the leaves that are held fixed, and ``joint`` is a log joint of the part.
            params: where.
            data: all of it; see :func:`bayestl.passes.batches` for how to pass over it.
            kind: columns in output space; see :mod:`bayestl.curvature._kinds`.
            batch_size: examples at once, static.
        """
        ...
