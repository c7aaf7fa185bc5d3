"""A Keras 3 model on its JAX backend as a network."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Inputs, Key, Net, Params
from bayestl.nets._state import Policy, updated
from bayestl.nets._static import ComparedByValue, checked_params

_SEED = "seed_generator_state"

# A model is changed for the time of one call, and what is traced in another thread must not see it.
_lock = threading.RLock()


@dataclasses.dataclass(frozen=True)
class _KerasApply:
    model: ComparedByValue
    takes_training: bool
    policy: Policy = Policy.FROZEN

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        model = self.model.value
        variables = _by_path(model)
        paths = {id(variable): path for path, variable in variables.items()}
        values = {
            **_tree.by_paths(params),
            **_tree.by_paths(state),
            **_seeds([p for p in variables if _is_seed(p)], key),
        }
        layers = [] if key is None else _norms(model)
        arguments = {"training": key is not None} if self.takes_training else {}
        with _converted(layers, self.policy):
            trainable, others = (
                [paths[id(v)] for v in which] for which in (model.trainable_variables, model.non_trainable_variables)
            )
            outputs, new = model.stateless_call(
                [values[p] for p in trainable], [values[p] for p in others], inputs, **arguments
            )
        if key is None or not state:
            return outputs, state
        after = {**values, **dict(zip(others, new, strict=True))}
        changed = _tree.restructure({path: after[path] for path in _tree.paths(state)}, state)
        statistics = {paths[id(v)] for layer in layers for v in layer.non_trainable_variables} & set(_tree.paths(state))
        return outputs, updated(self.policy, state, changed, statistics, "Keras")


def from_keras(model: Any) -> Net:
    """A network from a built Keras 3 model on the JAX backend, which stays as it is.

    The parameters are the model's trainable variables, as nested dicts by their paths (``conv1/kernel``; without the
    model's own name in front), lifted to at least float32; what ``trainable = False`` froze is not a parameter.
    All other variables (moving averages) are the state, except seed generators. Called with a key, the model runs with
    ``training=True`` and draws its noise from that key alone; called with ``key=None`` it runs with
    ``training=False``. Regularisation losses of layers are left out: the prior takes their place.

    The state stays as it is, and ``BatchNormalization`` uses its moving averages also with a key, until
    :func:`trained_state` says otherwise. Outputs must be raw: give classifiers ``classifier_activation=None``, and a
    last layer no softmax or sigmoid. Set lower precision in Keras (``keras.mixed_precision``, with a last layer
    of ``dtype="float32"``): its layers compute in the dtype of their policy, whatever :func:`cast` hands them.

    Args:
        model: a ``keras.Model`` that is built, with inputs as its one argument besides ``training``.

    Raises:
        ImportError: Keras is not installed.
        RuntimeError: Keras runs on another backend.
        TypeError: ``model`` is not a Keras model, or a parameter is not floating point.
        ValueError: the model is not built, has no parameters, two variables at one path, or noise and batch
            normalisation that ``training`` does not reach.

    Warns:
        UserWarning: the last layer ends with a softmax or a sigmoid.

    Example:
        A pretrained body and a new head, one logit of shape (B,) for a Bernoulli likelihood::

            body = keras.applications.MobileNet(include_top=False, pooling="avg", input_shape=(96, 96, 3))
            head = [keras.layers.Dropout(0.5), keras.layers.Dense(1, name="head"), keras.layers.Reshape(())]
            net = btl.nets.from_keras(keras.Sequential([body, *head]))   # parameters conv1/kernel, ..., head/kernel
            joint = btl.LogJoint(net, btl.likelihoods.bernoulli(), prior, num_data=100)
    """
    check_arguments(from_keras, locals())
    keras = _keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"model is {type(model).__name__}; give a keras.Model, such as keras.Sequential([...])")
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is not built; call it on some inputs, or begin it with keras.Input(shape)"
        )
    variables = _by_path(model)
    trainable = {id(variable) for variable in model.trainable_variables}
    # Copies: Keras gives its own arrays away to its training step, which deletes them.
    values = {path: jnp.array(v.value) for path, v in variables.items() if not _is_seed(path)}
    params = {path: x for path, x in values.items() if id(variables[path]) in trainable}
    state = {path: x for path, x in values.items() if path not in params}
    takes_training = "training" in inspect.signature(model.call).parameters
    _check(model, takes_training, variables)
    return Net(
        checked_params(_nested(params)), _nested(state) or (), _KerasApply(ComparedByValue(model), takes_training)
    )


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise ImportError("from_keras needs Keras 3: pip install keras") from error
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"Keras runs on the backend {keras.backend.backend()!r}; set KERAS_BACKEND=jax before importing keras"
        )
    return keras


def _check(model: Any, takes_training: bool, variables: dict[str, Any]) -> None:
    if not takes_training and (_norms(model) or any(map(_is_seed, variables))):
        raise ValueError(
            f"model {model.name!r} has dropout or batch normalisation, and its call does not take training; define "
            "call(self, inputs, training=None) and hand training on to its layers"
        )
    for last in model.layers[-1:]:
        name = getattr(getattr(last, "activation", None), "__name__", "")
        if name not in ("softmax", "sigmoid"):
            continue
        warnings.warn(
            f"the last layer, {last.name!r}, ends with {name}; likelihoods take raw outputs: leave the activation out "
            "(classifier_activation=None in keras.applications)",
            UserWarning,
            stacklevel=3,
        )


def _by_path(model: Any) -> dict[str, Any]:
    """Path to variable, without the name of the model, which Keras counts up from one model to the next."""
    variables: dict[str, Any] = {}
    for variable in model.variables:
        path = variable.path.removeprefix(f"{model.name}/")
        if path in variables:
            raise ValueError(f"model {model.name!r} has two variables at {path!r}; give its layers names of their own")
        variables[path] = variable
    return variables


def _is_seed(path: str) -> bool:
    return path.rpartition("/")[2] == _SEED


def _seeds(paths: Sequence[str], key: Key | None) -> dict[str, jax.Array]:
    """States of seed generators, each derived from the key of the call."""
    base = jax.random.key(0) if key is None else key
    return {
        path: jax.random.bits(jax.random.fold_in(base, number), (2,), jnp.uint32) for number, path in enumerate(paths)
    }


def _norms(model: Any) -> list[Any]:
    import keras

    # Model.layers stops at layers that hold others.
    return [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]


@contextlib.contextmanager
def _converted(layers: Sequence[Any], policy: Policy) -> Iterator[None]:
    """Batch normalisation set as the policy says: Keras lets a layer with ``trainable = False`` use moving averages."""
    if policy is Policy.TRAINED or not layers:
        yield
        return
    with _lock, contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(_restore, layer, layer.momentum, layer.trainable, [v.trainable for v in layer.variables])
            layer.trainable = policy is Policy.BATCH
            layer.momentum = 0.0 if policy is Policy.BATCH else layer.momentum
        yield


def _restore(layer: Any, momentum: float, trainable: bool, of_variables: Sequence[bool]) -> None:
    layer.momentum, layer.trainable = momentum, trainable
    for variable, value in zip(layer.variables, of_variables, strict=True):
        variable.trainable = value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from paths."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *above, name = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f"model has a variable {path!r} below another variable; give its layers other names")
        if name in node:
            raise ValueError(f"model has a variable {path!r} above another variable; give its layers other names")
        node[name] = value
    return tree
