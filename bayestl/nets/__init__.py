"""The edges to neural-network libraries: a plain function, a module or a model as a ``Net``; small networks."""

from bayestl._types import Net
from bayestl.nets._adapt import adapt
from bayestl.nets._cast import cast
from bayestl.nets._equinox import from_equinox
from bayestl.nets._freeze import freeze
from bayestl.nets._function import from_function
from bayestl.nets._keras import from_keras
from bayestl.nets._linen import from_linen
from bayestl.nets._log_scale import with_log_scale
from bayestl.nets._merge import merge
from bayestl.nets._nnx import from_nnx
from bayestl.nets._reestimate import reestimate_state
from bayestl.nets._small import conv_net, mlp
from bayestl.nets._state import frozen_state, state_policy, trained_state
from bayestl.nets._text import bag_of_words, text_cnn

__all__ = [
    "Net",
    "adapt",
    "bag_of_words",
    "cast",
    "conv_net",
    "freeze",
    "from_equinox",
    "from_function",
    "from_keras",
    "from_linen",
    "from_nnx",
    "frozen_state",
    "merge",
    "mlp",
    "reestimate_state",
    "state_policy",
    "text_cnn",
    "trained_state",
    "with_log_scale",
]
