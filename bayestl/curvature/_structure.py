"""The protocols of a curvature, and of what builds one."""

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

    A frozen dataclass and pytree. It includes neither kappa nor T nor the prior: ``power`` (kappa) and ``temperature``
    (T) are arguments where H meets the prior. H is positive semi-definite. Vectors are trees like the parameters; for
    a selection of parameters, they and the prior have ``None`` at the leaves left out.
    """

    def mv(self, v: Params) -> Params:
        """``H v``."""
        ...

    def precision_update(self, prior: Gaussian | None, params: Params, power: Scalar, temperature: Scalar) -> Gaussian:
        """The Gaussian at mean ``params`` with precision ``(power H + Sigma0^-1) / temperature``.

        Works under jit. ``prior=None`` is the flat prior, for structures whose H can be inverted.

        Raises:
            ValueError: a prior with which this structure has no closed form; a flat prior if H can never have an
                inverse in this structure. A numerical failure (not positive definite) gives NaN under jit; the caller,
                who sees concrete values, checks for it.
        """
        ...

    def log_det_ratio(self, prior: Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``, a scalar >= 0; half of it is the evidence's price for fitting the data.

        It is not computed as a difference of two log determinants, which float32 could not resolve.
        """
        ...


class Builder(Protocol):
    """Makes a curvature from a log joint at some parameters; ``curvature.dense()`` and the like return one.

    It is called inside ``jit``, where key, joint, params and data are traced and sizes are static, so it must not
    depend on values. A builder is a ``jax.tree_util.Partial`` of a module-level function, or a frozen, hashable
    dataclass; equal builders then share one compiled program.
    """

    def __call__(
        self, key: Key, joint: LogJoint, params: Params, data: Data | Batch, kind: Kind, batch_size: int
    ) -> Curvature:
        """H at ``params``.

        Args:
            key: for the kind (sampled labels) and for the structure (random start of Lanczos' method).
            joint: the network (``joint.outputs(params, inputs)``, deterministic), its state and likelihood; its prior
                if the structure depends on it. For a selection of parameters, ``params`` has ``None`` at the leaves
                that are held fixed, and ``joint`` is already the log joint of the part.
            params: the parameters at which to take the curvature.
            data: all of the data; see :func:`bayestl.passes.batches` for how to pass over them.
            kind: columns in output space; see :mod:`bayestl.curvature._kinds`.
            batch_size: examples at a time, static.
        """
        ...
