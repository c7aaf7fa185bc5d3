"""One prior from several, combined by the paths of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._blocks import Blocks


def by_path(priors: Mapping[str, Gaussian], *, like: Params | None = None) -> Blocks:
    """One prior from several: every parameter takes the marginal of the Gaussian whose pattern claims its path.

    Blocks are independent of each other. A Gaussian may have more leaves than its pattern claims, such as a source that
    still has its old head; the others are marginalised out.

    Args:
        priors: from path patterns to Gaussians. The literal ``"**"`` claims everything that no other pattern names.
        like: the target's parameters (or any tree with their structure). It is needed if none of the Gaussians covers
            the target's tree: the source has leaves that the target lacks, or has them in other containers.

    Raises:
        ValueError: a pattern that matches nothing, two patterns that claim the same path, a path that none claims.

    Example:
        >>> params = {"body": jnp.ones(3), "head": jnp.zeros(2)}
        >>> prior = btl.gaussians.by_path({
        ...     "head": btl.gaussians.isotropic(params, scale=1.0),
        ...     "**": btl.gaussians.isotropic(params, scale=0.1),
        ... })
        >>> print(prior.variance["head"])
        [1. 1.]
    """
    check_arguments(by_path, locals())
    if not priors:
        raise ValueError("by_path needs at least one pattern")
    for pattern, prior in priors.items():
        if not isinstance(prior, Gaussian):
            raise TypeError(f"by_path[{pattern!r}] is a {type(prior).__name__}; give a Gaussian")
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
        paths = [path for path in have if not any(_tree.matches(p, path) for p in others)]
    else:
        paths = [path for path in have if _tree.matches(pattern, path)]
    if target is not None:
        paths = [path for path in paths if path in set(target)]
    if not paths:
        within = "" if target is None else " that is also in like"
        raise ValueError(
            f"pattern {pattern!r} matches no parameter of its Gaussian{within}; the paths are {_tree.shown(have)}"
        )
    return paths


def _check_claims(claimed: Mapping[str, list[str]], target: list[str] | None) -> None:
    owner: dict[str, str] = {}
    for pattern, paths in claimed.items():
        for path in paths:
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
    all_claimed = {path for paths in claimed.values() for path in paths}
    trees = [prior.mean for prior in priors.values() if set(_tree.paths(prior.mean)) == all_claimed]
    containers = {jax.tree.structure(tree) for tree in trees}
    if len(containers) > 1:
        raise ValueError(
            f"the Gaussians hold the same paths in different containers: {' and '.join(map(str, containers))}; pass "
            "like=target.params to say which the target's are"
        )
    if trees:
        return trees[0]
    raise ValueError(
        f"the patterns claim {_tree.shown(sorted(all_claimed))}, and no Gaussian here covers exactly these paths; pass "
        "like=target.params to say what the target's tree is"
    )
