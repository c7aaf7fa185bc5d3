"""Gaussians put together from independent blocks of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, final

import jax

from bayestl import _tree
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Dual, Gaussian, leafwise


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Blocks(Gaussian):
    """Independent blocks, each a Gaussian over its own leaves. Made by :func:`by_path`.

    Attributes:
        blocks: Gaussians over selections of one tree: ``None`` at the leaves that belong to another block.
    """

    blocks: tuple[Gaussian, ...]

    @property
    def mean(self) -> Params:
        """The mean of all blocks, as one tree."""
        return _tree.merge(*(block.mean for block in self.blocks))

    def _parts(self, v: Params) -> list[tuple[Gaussian, Params]]:
        return [(block, _tree.like_selection(v, block.mean)) for block in self.blocks]

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        return _tree.total(block.precision_quadratic(part) for block, part in self._parts(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return _tree.total(block.log_det_covariance() for block in self.blocks)

    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return _tree.merge(*(block.variance() for block in self.blocks))

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return _tree.merge(*(block.precision_diagonal() for block in self.blocks))

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        return _tree.merge(*(block.precision_mv(part) for block, part in self._parts(v)))

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return _tree.merge(*(block.covariance_mv(part) for block, part in self._parts(v)))

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return _tree.merge(*(block.whiten(part) for block, part in self._parts(v)))

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return _tree.merge(*(block.unwhiten(part) for block, part in self._parts(v)))

    def around(self, mean: Params) -> Blocks:
        """See :meth:`Gaussian.around`."""
        return Blocks(tuple(block.around(part) for block, part in self._parts(mean)))

    def rescale(self, c: Any) -> Blocks:
        """See :meth:`Gaussian.rescale`."""
        return Blocks(tuple(block.rescale(part) for block, part in self._parts(leafwise(c, self.mean))))

    def inflate(self, eps: Scalar) -> Blocks:
        """See :meth:`Gaussian.inflate`."""
        return Blocks(tuple(block.inflate(eps) for block in self.blocks))

    def restrict(self, selection: Any) -> Blocks:
        """See :meth:`Gaussian.restrict`."""
        part = _tree.as_selection(self.mean, selection)
        return Blocks(tuple(block.restrict(inner) for block, inner in self._inside(part)))

    def condition(self, values: Params, selection: Any) -> Blocks:
        """See :meth:`Gaussian.condition`."""
        part = _tree.as_selection(self.mean, selection)
        return Blocks(
            tuple(
                block.condition(_tree.like_selection(values, block.mean), inner) for block, inner in self._inside(part)
            )
        )

    def _inside(self, part: Params) -> list[tuple[Gaussian, Params]]:
        """The blocks that a selection touches, each with the selection of its own leaves."""
        inner = [(block, _overlap(block.mean, part)) for block in self.blocks]
        return [(block, selection) for block, selection in inner if jax.tree.leaves(selection)]

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        return _tree.total(
            block.trace(part, self._inner_form(block, quadratic), self._inner_dual(block, dual))
            for block, part in self._parts(diagonal)
        )

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`."""
        return _tree.total(
            block.precision_trace(part, self._inner_form(block, quadratic)) for block, part in self._parts(diagonal)
        )

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return sum(block.num_directions for block in self.blocks)

    def _embedded(self, block: Gaussian, v: Params) -> Params:
        """A tree over one block, with zeros at all others."""
        return _tree.merge(v, _tree.complement(_tree.zeros_like(self.mean), block.mean))

    def _inner_form(self, block: Gaussian, quadratic: Any) -> Any:
        """A quadratic form over all blocks as one over a single block."""
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
        return Blocks(tuple(block.realign(like) for block in self.blocks))

    def __repr__(self) -> str:
        return f"Blocks({', '.join(map(repr, self.blocks))})"


def _overlap(tree: Params, other: Params) -> Params:
    """The leaves of ``tree`` where ``other`` has a leaf too."""
    return jax.tree.map(
        lambda x, y: x if x is not None and y is not None else None, tree, other, is_leaf=lambda x: x is None
    )


def by_path(priors: Mapping[str, Gaussian], *, like: Params | None = None) -> Blocks:
    """One prior from several: every parameter takes the marginal of the Gaussian whose pattern claims its path.

    Blocks are independent of each other. A Gaussian may hold more leaves than its pattern claims, as a source's does
    that still has its old head; those are marginalised out.

    Args:
        priors: path pattern to Gaussian. The literal ``"**"`` claims everything that no other pattern names.
        like: the target's parameters (or any tree of their structure). Needed when no single Gaussian here spans the
            target's tree: the source holds leaves that the target lacks, or keeps them in other containers.

    Raises:
        ValueError: a pattern that matches nothing, two patterns that claim one path, a path claimed by none.

    Example:
        >>> params = {"body": jnp.ones(3), "head": jnp.zeros(2)}
        >>> prior = btl.gaussians.by_path({
        ...     "head": btl.gaussians.isotropic(params, scale=1.0),
        ...     "**": btl.gaussians.isotropic(params, scale=0.1),
        ... })
        >>> print(prior.variance()["head"])
        [1. 1.]
    """
    if not priors:
        raise ValueError("by_path needs at least one pattern")
    for pattern, prior in priors.items():
        if not isinstance(prior, Gaussian):
            raise TypeError(f"by_path[{pattern!r}] is a {type(prior).__name__}; a Gaussian is wanted")
    target = None if like is None else _tree.paths(like)
    claimed = {pattern: _claimed(pattern, priors, target) for pattern in priors}
    _check_claims(claimed, target)
    tree = like if like is not None else _common_tree(priors, claimed)
    blocks = []
    for pattern, prior in priors.items():
        part = _tree.select_where(prior.mean, lambda path, p=pattern: path in claimed[p])
        blocks.append(prior.restrict(part).realign(tree))
    result = Blocks(tuple(blocks))
    if like is not None:
        fix = "give every new leaf its own pattern, with a Gaussian over the target's shapes"
        _tree.check_same_structure("the blocks", result.mean, "like", like, fix)
    return result


def _claimed(pattern: str, priors: Mapping[str, Gaussian], target: list[str] | None) -> list[str]:
    """The paths of a Gaussian that its pattern claims."""
    have = _tree.paths(priors[pattern].mean)
    if pattern == "**":
        others = [p for p in priors if p != "**"]
        found = [path for path in have if not any(_tree.matches(p, path) for p in others)]
    else:
        found = [path for path in have if _tree.matches(pattern, path)]
    if target is not None:
        found = [path for path in found if path in set(target)]
    if not found:
        within = "" if target is None else " that is also in like"
        raise ValueError(
            f"pattern {pattern!r} matches no parameter of its Gaussian{within}; the paths are {_tree.shown(have)}"
        )
    return found


def _check_claims(claimed: Mapping[str, list[str]], target: list[str] | None) -> None:
    owner: dict[str, str] = {}
    for pattern, found in claimed.items():
        for path in found:
            if path in owner:
                raise ValueError(
                    f"patterns {owner[path]!r} and {pattern!r} both claim {path!r}; make them disjoint, or use '**' "
                    "for everything not named"
                )
            owner[path] = pattern
    missing = [path for path in target or [] if path not in owner]
    if missing:
        raise ValueError(f"no pattern claims {_tree.shown(missing)}; add '**' for everything not named")


def _common_tree(priors: Mapping[str, Gaussian], claimed: Mapping[str, list[str]]) -> Params:
    """The tree of a Gaussian that holds exactly the claimed paths; only its containers matter, not its shapes."""
    wanted = {path for found in claimed.values() for path in found}
    trees = [prior.mean for prior in priors.values() if set(_tree.paths(prior.mean)) == wanted]
    containers = {jax.tree.structure(tree) for tree in trees}
    if len(containers) > 1:
        raise ValueError(
            f"the Gaussians hold the same paths in different containers: {' and '.join(map(str, containers))}; pass "
            "like=target.params to say which the target's are"
        )
    if trees:
        return trees[0]
    raise ValueError(
        f"the patterns claim {_tree.shown(sorted(wanted))}, and no Gaussian here spans just these paths; pass "
        "like=target.params to say what the target's tree is"
    )
