"""Raw outputs of a network to a numpyro distribution over its targets."""

from bayestl.likelihoods._bernoulli import Bernoulli, bernoulli
from bayestl.likelihoods._categorical import Categorical, categorical
from bayestl.likelihoods._check import check
from bayestl.likelihoods._check_shapes import check_shapes, check_targets_shape
from bayestl.likelihoods._check_values import check_values
from bayestl.likelihoods._distribution import Description, base, describe
from bayestl.likelihoods._from_function import FromFunction, from_function
from bayestl.likelihoods._normal import Normal, normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "Description",
    "FromFunction",
    "Normal",
    "base",
    "bernoulli",
    "categorical",
    "check",
    "check_shapes",
    "check_targets_shape",
    "check_values",
    "describe",
    "from_function",
    "normal",
]
