"""The kinds of arguments: what an annotation allows, and how it is said in words."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def alternatives(annotation: str) -> tuple[str, ...]:
    """The parts of ``A | B[C | D]`` between the outer bars."""
    parts, depth = [""], 0
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


def is_known(kind: str) -> bool:
    """Whether an annotation is in the tables below."""
    return kind in _KINDS or kind.split("[")[0] in _KINDS or kind in _CLASSES


def _inside(kind: str) -> tuple[str, ...]:
    """What stands between the brackets of ``A[B, C | D]``, split at the outer commas."""
    parts, depth = [""], 0
    for letter in kind.partition("[")[2].removesuffix("]"):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


def _fits_one_of(kinds: str, value: Any) -> bool:
    """Whether a value is of one of the kinds in ``A | B``; anything is of a kind that is not known."""
    parts = alternatives(kinds)
    return not all(is_known(kind) for kind in parts) or any(fits(kind, value) for kind in parts)


class Misfit(NamedTuple):
    """Something in a list or a dict that is not of the kind in its brackets.

    Attributes:
        where: in it, such as ``[0]`` or ``['name']``.
        value: what is there.
        kinds: what should be.
    """

    where: str
    value: Any
    kinds: tuple[str, ...]


def misfit(kind: str, value: Any) -> Misfit | None:
    """The first thing in a list or a dict that is not of a kind such as ``Sequence[A]`` or ``Mapping[A, B | C]``."""
    name, inside = kind.split("[")[0], _inside(kind)
    if "[" not in kind or kind in _KINDS or name not in _KINDS or not _kind(name)[1](value):
        return None
    if name in ("Mapping", "dict") and len(inside) == 2:
        keys = [
            Misfit(f", which has the key {key!r},", value, (kind,)) for key in value if not _fits_one_of(inside[0], key)
        ]
        values = [
            Misfit(f"[{key!r}]", x, alternatives(inside[1]))
            for key, x in value.items()
            if not _fits_one_of(inside[1], x)
        ]
        return next(iter(keys + values), None)
    if name == "Sequence" and len(inside) == 1:
        # The rows of an array are all alike, and each would be copied.
        items = value[:1] if isinstance(value, np.ndarray | jax.Array) and value.ndim else value
        wrong = (number for number, item in enumerate(items) if not _fits_one_of(inside[0], item))
        return next((Misfit(f"[{n}]", items[n], alternatives(inside[0])) for n in wrong), None)
    return None


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a kind: the name of a class, an annotation, or one with brackets."""
    if kind in _CLASSES:
        return kind in (base.__name__ for base in type(value).__mro__)
    return _kind(kind)[1](value) and misfit(kind, value) is None


def _kind(name: str) -> tuple[str, Callable[[Any], bool]]:
    """The entry of an annotation, or of what stands before its brackets."""
    return _KINDS.get(name) or _KINDS[name.split("[")[0]]


def in_words(kind: str) -> str:
    """What to give for an annotation."""
    if kind in _CLASSES:
        return _CLASSES[kind]
    words, name = _kind(kind)[0], kind.split("[")[0]
    if kind in _KINDS or "[" not in kind or name not in ("Mapping", "dict", "Sequence"):
        return words
    held = alternatives(_inside(kind)[-1])
    of = " or ".join(dict.fromkeys(in_words(one) for one in held)) if all(is_known(one) for one in held) else ""
    if name == "Sequence":
        return f"{words}, each of them {of}" if of else words
    return f"{words} whose keys are texts" + (f", and every value {of}" if of else "")


def key_ndim(key: Any) -> int | None:
    """How many axes an array of keys has, those of the key data left out; None for what is no key."""
    if not isinstance(key, jax.Array | np.ndarray):
        return None
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim
    is_old_style = key.dtype == jnp.uint32 and key.ndim > 0 and key.shape[-1] == 2
    return key.ndim - 1 if is_old_style else None


def is_whole(value: Any) -> bool:
    if isinstance(value, bool | np.bool_ | Tracer):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _is_array(value: Any) -> bool:
    """Numbers in an array, or in nested lists of equal lengths."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return not (isinstance(value.dtype, np.dtype) and value.dtype.kind in "OSU")
    if isinstance(value, bool | int | float | complex):
        return True
    if not isinstance(value, list | tuple) or not value:
        return False
    try:
        return np.asarray(value).dtype.kind in "biufc"
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | complex):
        return False
    return _is_array(value) and not isinstance(value, list | tuple) and np.ndim(value) == 0


def is_tree(value: Any) -> bool:
    """A pytree of arrays; of dicts whose keys can be sorted."""
    try:
        leaves = jax.tree.leaves(value)
    except (TypeError, ValueError):
        return False
    return all(_is_array(leaf) for leaf in leaves)


def can_be_taken_apart(value: Any) -> bool:
    """Whether it is a pytree: dicts whose keys cannot be sorted are none."""
    try:
        jax.tree.leaves(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_given_tree(value: Any) -> bool:
    return value is not None and is_tree(value)


def _is_selection(value: Any) -> bool:
    return value is None or _is_text(value) or _sequence_of(_is_text)(value) or is_tree(value)


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and jnp.dtype(value) is not None
    except (TypeError, ValueError):
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _sequence_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_one(value: Any) -> bool:
        return _is_sequence(value) and getattr(value, "ndim", 1) > 0 and all(fits(item) for item in value)

    return is_one


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray | jax.Array) and not isinstance(value, str | bytes)


def _anything(value: Any) -> bool:
    return True


_A_FUNCTION = ("a function", callable)

_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("anything", _anything),
    "Key": ("a random key, jax.random.key(0)", lambda value: key_ndim(value) == 0),
    "None": ("None", lambda value: value is None),
    "int": ("a whole number", is_whole),
    "float": ("a number", _is_number),
    "Int": ("a whole number", lambda value: _is_array(value) and jnp.issubdtype(jnp.result_type(value), jnp.integer)),
    "Scalar": ("a number", _is_number),
    "optax.ScalarOrSchedule": ("a number, or a function of the step", lambda x: callable(x) or _is_number(x)),
    "bool": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "str": ("text", _is_text),
    "bytes": ("bytes", lambda value: isinstance(value, bytes)),
    "slice": ("a slice", lambda value: isinstance(value, slice)),
    "Path": ("a path", _is_path),
    "os.PathLike": ("a path", _is_path),
    "jax.Array": ("an array", _is_array),
    "Numbers": ("an array of numbers", _is_array),
    "Arrays": ("an array, or a pytree of arrays", _is_given_tree),
    "DType": ("a dtype, such as jnp.float32", _is_dtype),
    "Float": ("an array", _is_array),
    "Params": ("a pytree of arrays", _is_given_tree),
    "NetState": ("a pytree, whose dicts have keys of one kind", can_be_taken_apart),
    "Selection": ("patterns of paths, or the tree of the parameters with None at those left out", _is_selection),
    "Inputs": ("an array (B, ...), or a pytree of such", _is_given_tree),
    "Outputs": ("an array (B, ...), or a pytree of such", _is_given_tree),
    "Targets": ("an array (B, ...), or a pytree of such", is_tree),
    "Sequence[str]": ("a list of texts", _sequence_of(_is_text)),
    "Sequence[int]": ("a list of whole numbers", _sequence_of(is_whole)),
    "Sequence[float]": ("a list of numbers", _sequence_of(_is_number)),
    "Sequence": ("a list", _sequence_of(_anything)),
    "tuple[int, int]": ("a pair of whole numbers", lambda x: _sequence_of(is_whole)(x) and len(x) == 2),
    "tuple[float, float]": ("a pair of numbers", lambda x: _sequence_of(_is_number)(x) and len(x) == 2),
    "Table": ("a table of bayestl.pretrained.tables", lambda x: isinstance(x, Mapping) and all(map(_is_text, x))),
    "Mapping": ("a dict", lambda value: isinstance(value, Mapping)),
    "dict": ("a dict", lambda value: isinstance(value, Mapping)),
    "Callable": _A_FUNCTION,
    "Transform": ("a function (key, batch) -> batch", callable),
    "Randomize": _A_FUNCTION,
    "Divergence": _A_FUNCTION,
    "Vectorize": _A_FUNCTION,
    "Activation": _A_FUNCTION,
    "Sharing": _A_FUNCTION,
    "Bias": _A_FUNCTION,
    "Callback": _A_FUNCTION,
    "Score": _A_FUNCTION,
    "Link": ("a link, such as bayestl.predict.probit", callable),
    "MakeGuide": ("a function from a model to a guide", callable),
    "Likelihood": ("one of bayestl.likelihoods, or a function of the outputs", callable),
    "Kind": ("a kind of curvature, such as bayestl.curvature.ggn", callable),
    "Builder": ("a structure of curvature, such as bayestl.curvature.dense()", callable),
    "Data": (
        "a data set: bayestl.data.arrays(inputs, targets), or bayestl.data.stream(source, example)",
        _has("num_examples", "first", "rows"),
    ),
    "Predictive": (
        "a predictive: what a function from bayestl.predict gives for inputs",
        lambda value: hasattr(type(value), "is_classification"),
    ),
    "Criterion": ("a criterion from bayestl.tune", lambda value: callable(value) and _has("groups")(value)),
    "Posterior": ("a posterior: something with sample(key, num_samples)", _has("sample")),
    "Prior": ("a prior: something with log_prob(params)", _has("log_prob")),
    "optax.GradientTransformation": ("an optax optimizer, such as optax.adam(1e-3)", _has("init", "update")),
}
"""Annotation to what it says in words, and whether a value is of this kind."""

_CLASSES = {
    "LogJoint": "a LogJoint(net, likelihood, prior)",
    "Net": "a Net, which bayestl.nets makes of a function or a module",
    "Batch": "a Batch(inputs, targets)",
    "Batches": "bayestl.passes.batches(data)",
    "Inference": "a method from bayestl.infer",
    "Checkpoint": "a Checkpoint(directory)",
    "Gaussian": "a Gaussian from bayestl.gaussians",
    "KroneckerPrecision": "a KroneckerPrecision",
    "GaussianOutputs": "GaussianOutputs, which linearized hands to its link",
    "LayeredNetwork": "a network from bayestl.layers.find",
    "Samples": "Samples, or a Chain",
    "ArrayData": "a data set of bayestl.data.arrays",
    "Family": "a Family, such as bayestl.tune.isotropic_family(name, mean)",
    "ReliabilityBins": "the bins of bayestl.metrics.reliability_bins",
    "ManyResult": "the result of bayestl.fit_many",
    "Mesh": "a jax.sharding.Mesh",
    "Environment": "an Environment(reset, step, params), as control.cartpole() and control.from_gymnax(...) give it",
    "Rollouts": "what control.rollouts made",
    "Critic": "what control.critic made",
    "Axes": "Matplotlib axes",
}
"""Names of classes, which this module cannot import, to what they are in words."""
