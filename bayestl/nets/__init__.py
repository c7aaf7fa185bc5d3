"""The edges to neural-network libraries: a plain function, a Flax module or two small networks as a ``Net``."""

from bayestl._types import Net
from bayestl.nets._function import from_function
from bayestl.nets._linen import from_linen
from bayestl.nets._log_scale import with_log_scale
from bayestl.nets._nnx import from_nnx
from bayestl.nets._small import conv_net, mlp

__all__ = ["Net", "conv_net", "from_function", "from_linen", "from_nnx", "mlp", "with_log_scale"]
