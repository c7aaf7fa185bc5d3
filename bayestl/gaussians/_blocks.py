"""Gaussians composed of independent blocks of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar, Selection
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._matrices import Columns, Dual
from bayestl.gaussians._storable import Parameter, Shapes, Stored, check_settings
from bayestl.gaussians._validate import factors


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Blocks(Gaussian, kind="blocks"):
    """Independent blocks, each a Gaussian over its own leaves. Made by :func:`by_path`.

    Attributes:
        parts: Gaussians over selections of one tree, with ``None`` at the leaves that belong to another part. They may
            consist of blocks themselves; :meth:`blocks` lists all of these one by one.
    """

    parts: tuple[Gaussian, ...]

    num_parts: ClassVar[int | None] = None

    @property
    def mean(self) -> Params:
        """The mean of all blocks, as one tree."""
        return _tree.merge(*(block.mean for block in self.parts))

    def _divided(self, v: Params) -> list[tuple[Gaussian, Params]]:
        return [(block, _tree.like_selection(v, block.mean)) for block in self.parts]

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        return _tree.total(block.precision_quadratic(part) for block, part in self._divided(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return _tree.total(block.log_det_covariance() for block in self.parts)

    @property
    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return _tree.merge(*(block.variance for block in self.parts))

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return _tree.merge(*(block.precision_diagonal() for block in self.parts))

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        return _tree.merge(*(block.precision_mv(part) for block, part in self._divided(v)))

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return _tree.merge(*(block.covariance_mv(part) for block, part in self._divided(v)))

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return _tree.merge(*(block.whiten(part) for block, part in self._divided(v)))

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return _tree.merge(*(block.unwhiten(part) for block, part in self._divided(v)))

    def around(self, mean: Params) -> Blocks:
        """See :meth:`Gaussian.around`."""
        return Blocks(tuple(block.around(part) for block, part in self._divided(mean)))

    def rescale(self, c: Any) -> Blocks:
        """See :meth:`Gaussian.rescale`."""
        each = factors(c, self.mean)
        if jax.tree.structure(c) == jax.tree.structure(0):
            return Blocks(tuple(block.rescale(c) for block in self.parts))
        return Blocks(tuple(block.rescale(part) for block, part in self._divided(each)))

    def inflate(self, eps: Scalar) -> Blocks:
        """See :meth:`Gaussian.inflate`."""
        return Blocks(tuple(block.inflate(eps) for block in self.parts))

    def restrict(self, selection: Selection) -> Blocks:
        """See :meth:`Gaussian.restrict`."""
        part = _tree.as_selection(self.mean, selection)
        return Blocks(tuple(block.restrict(inner) for block, inner in self._inside(part)))

    def condition(self, values: Params, selection: Selection) -> Blocks:
        """See :meth:`Gaussian.condition`."""
        check_arguments(Blocks.condition, locals())
        part = _tree.as_selection(self.mean, selection)
        return Blocks(
            tuple(
                block.condition(_tree.like_selection(values, block.mean), inner) for block, inner in self._inside(part)
            )
        )

    def _inside(self, part: Params) -> list[tuple[Gaussian, Params]]:
        """The blocks that a selection touches, each with the selection of its own leaves."""
        inner = [(block, _overlap(block.mean, part)) for block in self.parts]
        return [(block, selection) for block, selection in inner if jax.tree.leaves(selection)]

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        return _tree.total(
            block.trace(part, self._inner_form(block, quadratic), self._inner_dual(block, dual))
            for block, part in self._divided(diagonal)
        )

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`."""
        return _tree.total(
            block.precision_trace(part, self._inner_form(block, quadratic)) for block, part in self._divided(diagonal)
        )

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return sum(block.num_directions for block in self.parts)

    def _embedded(self, block: Gaussian, v: Params) -> Params:
        """A tree over one block, with zeros at all others."""
        return _tree.merge(v, _tree.complement(_tree.zeros_like(self.mean), block.mean))

    def _inner_form(self, block: Gaussian, quadratic: Any) -> Any:
        """A quadratic form over all blocks, restricted to a single block."""
        return lambda v: quadratic(self._embedded(block, v))

    def _inner_dual(self, block: Gaussian, dual: Dual | None) -> Dual | None:
        """Likewise, from the other side: B is zero outside the block."""
        if dual is None:
            return None

        def trace(diagonal: Params, quadratic: Any) -> jax.Array:
            own = self._embedded(block, diagonal)
            return dual.trace(own, lambda v: quadratic(_tree.like_selection(v, block.mean)))

        return Dual(trace, dual.num_directions)

    def realign(self, like: Params) -> Blocks:
        """See :meth:`Gaussian.realign`."""
        return Blocks(tuple(block.realign(like) for block in self.parts))

    def blocks(self) -> tuple[Gaussian, ...]:
        """See :meth:`Gaussian.blocks`."""
        return tuple(block for part in self.parts for block in part.blocks())

    def independent_variances(self) -> Params | None:
        """See :meth:`Gaussian.independent_variances`."""
        each = [part.independent_variances() for part in self.parts]
        return None if any(x is None for x in each) else _tree.merge(*each)

    def without_columns(self) -> tuple[Gaussian, Columns | None]:
        """See :meth:`Gaussian.without_columns`: the columns of all blocks over one tree, zero outside of each block."""
        bases, columns = zip(*(block.without_columns() for block in self.blocks()), strict=True)
        variances = Blocks(bases).independent_variances()
        base = Blocks(bases) if variances is None else Diagonal(self.mean, variances)
        return base, side_by_side(bases, columns)

    def add_diagonal_precision(self, diagonal: Params) -> Blocks:
        """See :meth:`Gaussian.add_diagonal_precision`."""
        return Blocks(tuple(block.add_diagonal_precision(part) for block, part in self._divided(diagonal)))

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """See :meth:`Gaussian.diagonal_log_det_ratio`."""
        return _tree.total(block.diagonal_log_det_ratio(part) for block, part in self._divided(diagonal))

    def stored(self) -> Stored:
        """See :meth:`Gaussian.stored`."""
        return Stored(parts=self.parts)

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """See :meth:`Gaussian.stored_shapes`."""
        check_settings(settings, set())
        return Shapes({}, {})

    @classmethod
    def from_stored(cls, stored: Stored) -> Blocks:
        """See :meth:`Gaussian.from_stored`."""
        return Blocks(stored.parts)

    def check_values(self) -> None:
        """See :meth:`Gaussian.check_values`."""

    def __repr__(self) -> str:
        return f"Blocks({', '.join(map(repr, self.parts))})"


def side_by_side(blocks: Sequence[Gaussian], columns: Sequence[Columns | None]) -> Columns | None:
    """The columns of independent blocks as columns over all of them, zero outside their own block; None for none."""
    ranks = [0 if each is None else len(each.eigenvalues) for each in columns]
    if not sum(ranks):
        return None
    starts = [sum(ranks[:number]) for number in range(len(ranks))]

    def placed(block: Gaussian, each: Columns | None, start: int) -> Params:
        zeros = jax.tree.map(lambda m: jnp.zeros((sum(ranks), *m.shape), m.dtype), block.mean)
        if each is None:
            return zeros
        return jax.tree.map(lambda zero, q: zero.astype(q.dtype).at[start : start + len(q)].set(q), zeros, each.basis)

    bases = [placed(*one) for one in zip(blocks, columns, starts, strict=True)]
    present = [each for each in columns if each is not None]
    remaining = None
    if any(each.remaining is not None for each in present):
        remaining = jnp.concatenate([each.ratios for each in present])
    return Columns(_tree.merge(*bases), jnp.concatenate([each.eigenvalues for each in present]), remaining)


def _overlap(tree: Params, other: Params) -> Params:
    """The leaves of ``tree`` where ``other`` has a leaf too."""
    return jax.tree.map(
        lambda x, y: x if x is not None and y is not None else None, tree, other, is_leaf=lambda x: x is None
    )
