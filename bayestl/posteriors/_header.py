"""The header of a saved posterior: what is in the file, checked field by field, since files come from anywhere."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from bayestl.posteriors import _stored_tree
from bayestl.posteriors._stored_tree import StoredTree

FORMAT = "bayestl.posterior"
VERSION = 1

_FIELDS = {"format", "version", "package_version", "posterior", "net_state", "settings"}
# The trees of each kind; those of a Gaussian are in a file of its own inside.
TREES = {
    "point": {"params"},
    "samples": {"draws", "log_weights"},
    "chain": {"draws", "log_weights", "params", "chain", "stats"},
    "mixture": {"log_weights"},
    "part": {"rest"},
    "gaussian": set(),
}
_NUM_INNER = {"part": 1}


class Node(NamedTuple):
    """A posterior as a header describes it: its kind, its trees by name, and the posteriors inside."""

    kind: str
    trees: dict[str, StoredTree]
    inner: tuple[Node, ...]
    place: str


class Header(NamedTuple):
    """What a file says about itself.

    Attributes:
        posterior: the posterior.
        net_state: the network's state.
        settings: any JSON object.
        package_version: the version of bayestl that wrote the file.
    """

    posterior: Node
    net_state: StoredTree
    settings: dict[str, Any]
    package_version: str


def to_json(header: Header) -> str:
    """The header as text.

    Raises:
        TypeError: settings that are not a JSON object.
    """
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "package_version": header.package_version,
        "posterior": _to_json(header.posterior),
        "net_state": _stored_tree.to_json(header.net_state),
        "settings": header.settings,
    }
    try:
        return json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"settings cannot be written, since they are not a JSON object: {error}") from error


def _to_json(node: Node) -> dict[str, Any]:
    trees = {name: _stored_tree.to_json(tree) for name, tree in node.trees.items()}
    return {"kind": node.kind, "trees": trees, "inner": [_to_json(one) for one in node.inner]}


def from_json(text: str) -> Header:
    """The header from text.

    Raises:
        ValueError: anything that :func:`to_json` would not have written.
    """
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"its header is not valid: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError(f"its header is not valid: its format is not {FORMAT!r}")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"its header is not valid: version {version!r} is not a positive integer")
    if version > VERSION:
        raise ValueError(f"it has format version {version}, and this bayestl reads up to {VERSION}: upgrade bayestl")
    if set(fields) != _FIELDS or not isinstance(fields["settings"], dict):
        raise ValueError(f"its header is not valid: its fields are {sorted(fields)}, not {sorted(_FIELDS)}")
    posterior, state = _from_json(fields["posterior"], "posterior"), _tree_at(fields["net_state"], "net_state")
    return Header(posterior, state, fields["settings"], str(fields["package_version"]))


def _from_json(entry: Any, place: str) -> Node:
    if not isinstance(entry, dict) or set(entry) != {"kind", "trees", "inner"} or entry["kind"] not in TREES:
        raise ValueError("its header is not valid: a posterior in it is of no known kind")
    kind, trees, inner = entry["kind"], entry["trees"], entry["inner"]
    if not isinstance(trees, dict) or set(trees) != TREES[kind] or not isinstance(inner, list):
        raise ValueError(f"its header is not valid: a posterior of kind {kind!r} has other fields than such ones have")
    few = not inner if kind == "mixture" else len(inner) != _NUM_INNER.get(kind, 0)
    if few:
        raise ValueError(f"its header is not valid: a posterior of kind {kind!r} is made of {len(inner)} others")
    nodes = tuple(_from_json(one, f"{place}/{number}") for number, one in enumerate(inner))
    return Node(kind, {name: _tree_at(tree, f"{place}/{name}") for name, tree in trees.items()}, nodes, place)


def _tree_at(entry: Any, prefix: str) -> StoredTree:
    tree = _stored_tree.from_json(entry)
    if tree.prefix != prefix:
        raise ValueError(f"its header is not valid: the arrays of {prefix!r} are said to be at {tree.prefix!r}")
    return tree


def all_trees(node: Node) -> list[StoredTree]:
    """The trees of a posterior and of those inside."""
    return [*node.trees.values(), *(tree for one in node.inner for tree in all_trees(one))]


def gaussian_places(node: Node) -> list[str]:
    """The names of the arrays that are files of Gaussians."""
    own = [f"{node.place}/gaussian"] if node.kind == "gaussian" else []
    return own + [place for one in node.inner for place in gaussian_places(one)]
