"""Networks and likelihoods called with what a user gave: an error inside them says which shapes came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from bayestl import _tree

Result = TypeVar("Result")

_NETWORK, _LIKELIHOOD = "the network cannot be applied to ", "the likelihood cannot be applied to "
_MAKE_INFERENCE = "make_inference cannot be called with "
_OURS = (_NETWORK, _LIKELIHOOD, _MAKE_INFERENCE)
# What Python, NumPy and JAX raise where shapes or containers do not fit. An error of any other type says more than we
# could: that the network cannot be traced, or one that the user's own code raises.
_OF_SHAPES = (TypeError, ValueError, KeyError, IndexError, AttributeError)


def call_network(network: Callable[[], Result], params: Any, inputs: Any) -> Result:
    """``network()``, which applies a network to ``params`` and ``inputs``.

    Raises:
        TypeError: it raised one.
        ValueError: it raised another error of arguments that do not fit, in one sentence with their shapes.
    """
    return _call(network, lambda: f"{_NETWORK}inputs of shapes {_listed(inputs)} with parameters {_named(params)}")


def call_likelihood(likelihood: Callable[[], Result], outputs: Any) -> Result:
    """``likelihood()``, which applies a likelihood to ``outputs``; raises as :func:`call_network` does."""
    return _call(likelihood, lambda: f"{_LIKELIHOOD}outputs of shapes {_listed(outputs)}")


def call_make_inference(make_inference: Callable[[Any], Result], settings: Any) -> Result:
    """``make_inference(settings)``, with the settings of one member; raises as :func:`call_network` does."""
    return _call(
        lambda: make_inference(settings), lambda: f"{_MAKE_INFERENCE}the settings of one member, {_named(settings)}"
    )


def _call(function: Callable[[], Result], what: Callable[[], str]) -> Result:
    try:
        return function()
    except Exception as error:
        is_of_flax = type(error).__module__.split(".")[0] == "flax"
        if (type(error) not in _OF_SHAPES and not is_of_flax) or str(error).startswith(_OURS):
            raise
        kind = TypeError if type(error) is TypeError else ValueError
        # JAX adds a paragraph about its own frames.
        text = str(error).partition("\n---")[0]
        words = f"there is no {text}" if type(error) is KeyError else text
        raise kind(f"{what()}: {words}") from error


def _listed(tree: Any) -> list[Any]:
    return [np.shape(x) for x in jax.tree.leaves(tree)]


def _named(params: Any, most: int = 4) -> str:
    shapes = {path: np.shape(x) for path, x in _tree.by_paths(params).items()}
    listed = ", ".join(f"{path!r} {shape}" if path else str(shape) for path, shape in list(shapes.items())[:most])
    return (listed or "none") + (f" and {len(shapes) - most} more" if len(shapes) > most else "")
