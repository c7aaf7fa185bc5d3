"""Checks of arguments that many public functions share."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bayestl._types import Key


def check_key(function: str, key: Key, batched: bool = False) -> None:
    """Refuse anything but a random key where one is the first argument.

    Args:
        function: the name of the public function, for the message.
        key: what was given: a key of ``jax.random.key``, or an old-style one, uint32 (2,).
        batched: one key per member instead, with a leading axis.

    Raises:
        TypeError: anything else; most often the arguments are in another order.
    """
    if _ndim(key) == int(batched):
        return
    expected = "an array of random keys, one per member" if batched else "a random key"
    example = "jax.random.split(jax.random.key(0), num)" if batched else "jax.random.key(0)"
    raise TypeError(f"{function}'s first argument is {expected}; got {_name(key)}. Give {example}")


def _ndim(key: Key) -> int | None:
    """How many axes an array of keys has, those of the key data left out; None for what is no key."""
    if not isinstance(key, jax.Array | np.ndarray):
        return None
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim
    is_old_style = key.dtype == jnp.uint32 and key.ndim > 0 and key.shape[-1] == 2
    return key.ndim - 1 if is_old_style else None


def _name(value: Any) -> str:
    """What a value is, in a few words that fit after "got"."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], skip: Sequence[str] = ()) -> None:
    """Check the arguments of a public function against its annotations, before anything is done with them.

    Called first thing in the function: ``check_arguments(fit, locals())``. The annotations are the table of what is
    allowed. Only kinds are checked, not values, so it may be called while tracing. An annotation that is not known here
    (``Any`` first of all) allows everything.

    Args:
        function: the function itself, or the ``__init__`` of a class.
        arguments: name to value; further names are ignored.
        skip: arguments with checks of their own, whose sentences say more.

    Raises:
        TypeError: an argument of another kind, in one sentence with its name, what came and what to give.

    Example:
        >>> def mean(values: jax.Array, axis: int | None = None):
        ...     check_arguments(mean, locals())
        >>> mean(jnp.ones(3), axis=1.5)
        Traceback (most recent call last):
        TypeError: mean: axis is 1.5; give a whole number or None
    """
    name = function.__qualname__.removesuffix(".__init__")
    for position, (argument, kinds) in enumerate(_kinds_of(function)):
        value = arguments[argument]
        if argument in skip:
            continue
        if kinds == ("Key",):
            if position == 0:
                check_key(name, value, batched=argument == "keys")
            elif _ndim(value) != 0:
                raise TypeError(f"{name}: {argument} is {_shown(value)}; give a random key, jax.random.key(0)")
        elif not any(_fits(kind, value) for kind in kinds):
            raise TypeError(f"{name}: {argument} is {_shown(value)}; give {_expected(kinds, value)}")


@cache
def _kinds_of(function: Callable[..., Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The arguments of a function whose kinds are known here, each with its alternatives."""
    known = []
    for position, (argument, annotation) in enumerate(function.__annotations__.items()):
        kinds = _alternatives(str(annotation))
        variadic = inspect.signature(function).parameters
        is_plain = argument in variadic and variadic[argument].kind is not inspect.Parameter.VAR_POSITIONAL
        if "Data" in kinds and "Batch" in kinds:
            kinds = (*kinds, "Batches")
        if is_plain and all(_is_known(kind) for kind in kinds):
            known.append((argument, kinds))
        elif position == 0:
            known.append((argument, ("object",)))  # a key counts as the first argument only where it is
    return tuple(known)


def _alternatives(annotation: str) -> tuple[str, ...]:
    """The parts of ``A | B[C | D]`` between the outer bars."""
    parts, depth = [""], 0
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


def _is_known(kind: str) -> bool:
    return kind in _KINDS or kind.split("[")[0] in _KINDS or kind in _CLASSES


def _fits(kind: str, value: Any) -> bool:
    if kind in _CLASSES:
        return kind in (base.__name__ for base in type(value).__mro__)
    return _kind(kind)[1](value)


def _kind(name: str) -> tuple[str, Callable[[Any], bool]]:
    """The entry of an annotation, or of what stands before its brackets."""
    return _KINDS.get(name) or _KINDS[name.split("[")[0]]


def _expected(kinds: Sequence[str], value: Any) -> str:
    """What to give instead, with the shortest way there from what came."""
    bases = {base.__name__ for base in type(value).__mro__}
    modules = {base.__module__.split(".")[0] for base in type(value).__mro__}
    if "Data" in kinds and isinstance(value, tuple | list) and len(value) == 2:
        return "bayestl.data.arrays(inputs, targets)"
    if "Checkpoint" in kinds and isinstance(value, str | os.PathLike):
        return f"bayestl.Checkpoint({str(value)!r})"
    if "Net" in kinds and modules & _LIBRARIES.keys():
        library = next(name for name in _LIBRARIES if name in modules)
        return f"a Net, {_LIBRARIES[library]}"
    if {"Posterior", "Params", "Gaussian"} & set(kinds) and bases & {"FitResult", "ManyResult", "Loaded"}:
        return f"its .{'params' if 'Params' in kinds else 'posterior'}"
    texts = [
        _CLASSES[kind] if kind in _CLASSES else (_KINDS.get(kind) or _KINDS[kind.split("[")[0]])[0] for kind in kinds
    ]
    return " or ".join(dict.fromkeys(texts))


def _shown(value: Any) -> str:
    """A value in a few words: itself where it is short, else what it is."""
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 60):
        return repr(value)
    return _name(value)


def _is_whole(value: Any) -> bool:
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


def _is_tree(value: Any) -> bool:
    """A pytree of arrays; of dicts whose keys can be sorted."""
    try:
        leaves = jax.tree.leaves(value)
    except (TypeError, ValueError):
        return False
    return all(_is_array(leaf) for leaf in leaves)


def _is_given_tree(value: Any) -> bool:
    return value is not None and _is_tree(value)


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and jnp.dtype(value) is not None
    except TypeError:
        return False


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
    "Key": ("a random key, jax.random.key(0)", lambda value: _ndim(value) == 0),
    "None": ("None", lambda value: value is None),
    "int": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "Scalar": ("a number", lambda value: _is_array(value) and not isinstance(value, list | tuple)),
    "optax.ScalarOrSchedule": ("a number, or a function of the step", lambda x: callable(x) or _is_number(x)),
    "bool": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "str": ("text", lambda value: isinstance(value, str)),
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
    "Inputs": ("an array (B, ...), or a pytree of such", _is_given_tree),
    "Outputs": ("an array (B, ...), or a pytree of such", _is_given_tree),
    "Targets": ("an array (B, ...), or a pytree of such", _is_tree),
    "Sequence[str]": ("a list of texts", _sequence_of(lambda item: isinstance(item, str))),
    "Sequence[int]": ("a list of whole numbers", _sequence_of(_is_whole)),
    "Sequence[float]": ("a list of numbers", _sequence_of(_is_number)),
    "Sequence": ("a list", _is_sequence),
    "tuple[int, int]": ("a pair of whole numbers", lambda x: _sequence_of(_is_whole)(x) and len(x) == 2),
    "tuple[float, float]": ("a pair of numbers", lambda x: _sequence_of(_is_number)(x) and len(x) == 2),
    "Table": ("a table of bayestl.pretrained.tables", lambda value: isinstance(value, Mapping)),
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
    "ManyResult": "the result of bayestl.fit_many",
    "Mesh": "a jax.sharding.Mesh",
    "Environment": "an Environment(reset, step, params), as control.cartpole() and control.from_gymnax(...) give it",
    "Rollouts": "what control.rollouts made",
    "Critic": "what control.critic made",
    "Axes": "Matplotlib axes",
}
"""Names of classes, which this module cannot import, to what they are in words."""

_LIBRARIES = {
    "keras": "bayestl.nets.from_keras(model)",
    "flax": "bayestl.nets.from_linen(module, variables), or from_nnx(module)",
    "equinox": "bayestl.nets.from_equinox(module)",
}
"""Libraries of networks to the function that takes their modules."""
