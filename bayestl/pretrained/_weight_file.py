"""A file of published weights that knows which array is which."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bayestl._types import Net
from bayestl.pretrained._layouts import Table
from bayestl.pretrained._load import load
from bayestl.pretrained._read import read


class WeightFile(NamedTuple):
    """A weight file with the table of its names, to be given to :func:`bayestl.transfer` as a source.

    It is read when it is used. What the target's network names as new keeps its initialisation; what the file has
    beyond the network, a classifier that was cut off, is left out.

    Attributes:
        path: what :func:`read` takes.
        table: which array is which parameter; one of :mod:`bayestl.pretrained.tables`, or your own.
        rename: name in the file -> name in the table, where they differ.
        key: only the arrays below this name.

    Example:
        >>> import tempfile
        >>> from bayestl.pretrained.tables import AS_IS, DENSE, Entry
        >>> table = {"fc.weight": Entry("head/kernel", DENSE), "fc.bias": Entry("head/bias", AS_IS)}
        >>> net = btl.nets.mlp(jax.random.key(0), (3, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(folder + "/weights.npz", **{"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)})
        ...     file = btl.pretrained.WeightFile(folder + "/weights.npz", table)
        ...     print(file.weights_for(net).params["head"]["kernel"].shape)
        (3, 2)
    """

    path: str | os.PathLike[str]
    table: Table
    rename: Callable[[str], str] | None = None
    key: str | None = None

    def weights_for(self, net: Net, new: Sequence[str] = ()) -> Net:
        """The network with the file's weights and running statistics.

        Args:
            net: whose parameters are to be filled.
            new: path patterns of what keeps its values, e.g. ``["head/**"]``.

        Raises:
            ValueError: as :func:`load`: parameters without an array, arrays of another shape.
        """
        return load(net, read(self.path, key=self.key).arrays, self.table, new=list(new), rename=self.rename).net
