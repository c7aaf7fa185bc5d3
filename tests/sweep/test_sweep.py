"""Spoiled arguments end in one sentence of ours, for every public function and every argument of it.

An error counts as ours if it is a ``TypeError``, a ``ValueError`` or another one that docstrings name, and if its
innermost frame is a ``raise`` in this package. A function that is in no table fails the first test. Arguments of
another kind are tried here; ``test_deep.py`` tries all the ways to spoil one.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from tests.sweep.table import TABLE, Case

PACKAGE = Path(btl.__file__).parent
ROOMS = ["bayestl", *(f"bayestl.{room.name}" for room in pkgutil.iter_modules(btl.__path__) if room.name[0] != "_")]
ROOMS += ["bayestl.data.text", "bayestl.predict.acquisition", "bayestl.predict.calibrate", "bayestl.predict.conformal"]

# Called by other rooms, most of them while they trace, with arguments that a function above has checked.
FOR_OTHER_ROOMS = {
    "curvature": "expand joined lanczos product reduce separate",
    "data.text": "Tokenizer",
    "infer": "check_params minimise negative_elbo random_anchors random_anchors_and_targets warn_weight_decay",
    "layers": "add_products held_numbers once_per_row same_rows trace_products weight_gradient weight_gradients",
    "likelihoods": "at_labels base check_inherited check_normalised check_real_targets check_samples check_shapes "
    "check_targets_shape class_log_probs class_probs describe describe_predictive expected_target has_logits "
    "knows_hessian mean_field_moderated negative_and_absolute own predictive_distribution probit_moderated "
    "target_noise",
    "passes": "check_weights first_examples in_turn joined looped mapped num_inputs scanned split whole HostReader",
    "posteriors": "check_equal",
    "pretrained": "Backbone as_products first_token global_average mean_of_tokens",
    "predict.conformal": "adaptive inverse_probability",
    "training": "all_finite point_of digest traced_digest",
}
OURS = (TypeError, ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, ImportError, NotImplementedError)


@cache
def public() -> dict[str, Any]:
    """The public functions with arguments, and classes with a constructor of their own, by room and name."""
    functions: dict[str, Any] = {}
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            value, short = getattr(module, name), room[len("bayestl.") :]
            # Records and pytrees are built by JAX from tracers and placeholders, so that they check nothing.
            has_constructor = (
                inspect.isclass(value) and "self" in inspect.signature(vars(value).get("__init__", len)).parameters
            )
            is_generated = has_constructor and value.__init__.__qualname__ != f"{value.__qualname__}.__init__"
            is_record = inspect.isclass(value) and (
                hasattr(value, "__dataclass_fields__") or getattr(value, "_is_protocol", False)
            )
            counts = inspect.isfunction(value) or (has_constructor and not is_generated and not is_record)
            if counts and value not in functions.values() and name not in FOR_OTHER_ROOMS.get(short, "").split():
                parameters = inspect.signature(value).parameters.values()
                if any(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters):
                    functions[f"{short}.{name}" if short else name] = value
    return functions


@cache
def raises_in(path: str) -> set[int]:
    """The lines of a file that belong to a ``raise``."""
    statements = (node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.Raise))
    return {line for node in statements for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def is_ours(error: BaseException) -> bool:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        isinstance(error, OURS)
        and PACKAGE in Path(frame.filename).parents
        and frame.lineno in raises_in(frame.filename)
    )


def foreign(function: Any, arguments: dict[str, Any]) -> str | None:
    """What is wrong with how a call ends; None where it ends well, or in a sentence of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except Exception as error:
        if is_ours(error):
            return None
        frames = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(frames) if PACKAGE in Path(frame.filename).parents), frames[-1])
        return f"{type(error).__name__} below {last.filename}:{last.lineno}: {str(error)[:100]}"
    return None


def spoiled(value: Any) -> Iterator[tuple[str, Any]]:
    """Other values for a valid one: of other kinds, of other shapes, not finite, empty."""
    yield from (("an object", object()), ("None", None), ("a fraction", 1.5), ("text", "text"), ("an empty dict", {}))
    yield from (
        ("NaN", float("nan")),
        ("-1", -1),
        ("an empty list", []),
        ("int keys", {0: jnp.ones(2), 1: jnp.ones(2)}),
    )
    yield "mixed keys", {0: jnp.ones(2), "a": jnp.ones(2)}
    yield "an array of shape (3, 5, 7)", jnp.ones((3, 5, 7))
    if isinstance(value, dict | jax.Array | np.ndarray | tuple):
        leaves = jax.tree.leaves(value)
        if leaves and all(
            str(getattr(leaf, "dtype", None)) in ("float32", "float64", "int32", "int64") and leaf.ndim
            for leaf in leaves
        ):
            for name, change in (
                ("NaN inside", lambda leaf: jnp.full(leaf.shape, jnp.nan)),
                ("zero rows", lambda leaf: leaf[:0]),
                ("one more axis", lambda leaf: leaf[None]),
                ("integers", lambda leaf: leaf.astype(int)),
                ("-1 everywhere", lambda leaf: jnp.full(leaf.shape, -1)),
                ("one column more", lambda leaf: jnp.concatenate([leaf, leaf[..., :1]], -1)),
            ):
                yield name, jax.tree.map(change, value)


def spoiled_arguments(name: str, case: Case, first: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    arguments = case.arguments()
    for argument, value in arguments.items():
        for i, (what, bad) in enumerate(spoiled(value)):
            if first is None or i < first:
                yield f"{name}({argument}={what})", arguments | {argument: bad}


def test_every_public_function_is_in_the_table():
    assert sorted(public()) == sorted(TABLE)


@pytest.mark.parametrize("room", ROOMS)
def test_an_argument_of_another_kind_is_one_sentence(room: str):
    short = room[len("bayestl.") :]
    names = [name for name in TABLE if name.rpartition(".")[0] == short]
    outcomes = {
        call: foreign(public()[name], arguments)
        for name in names
        for call, arguments in spoiled_arguments(name, TABLE[name], first=1)
    }
    assert {call: wrong for call, wrong in outcomes.items() if wrong} == {}
