"""What the names in the pickle of a state dict stand for: storages, views on them, and plain containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from bayestl.pretrained._pickle import Global
from bayestl.pretrained._weights import native, num_bytes

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_DTYPES = (
    *_STORAGES.values(),
    *("uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
)
# Objects that training scripts leave in checkpoints beside the tensors; none of them holds any.
_BUILTINS = ("object", "list", "dict", "int", "long", "float", "complex", "slice", "range", "xrange")
INERT = frozenset({
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
    # Python 3.13 names them by another module.
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
    "argparse.Namespace", "types.SimpleNamespace", "_codecs.encode", "copyreg._reconstructor",
    "copy_reg._reconstructor", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "decimal.Decimal", "fractions.Fraction", "uuid.UUID",
})  # fmt: skip
_UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")


@dataclasses.dataclass(frozen=True)
class Storage:
    """Memory that tensors share: its key in the file, how its bytes are read, where it starts, how long it is."""

    key: str
    dtype: np.dtype
    start: int
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view on a storage, in elements; with the changes of its numbers that torch puts off until they are used."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False

    def array(self, name: str, content: memoryview, little_endian: bool) -> np.ndarray:
        """The tensor as a view on ``content``, the bytes of the whole storage; a copy where its numbers change."""
        dtype = self.dtype.newbyteorder("<" if little_endian else ">")
        if not num_bytes(self.shape, dtype):
            return np.empty(self.shape, self.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        end, available = (last + 1) * dtype.itemsize, min(self.storage.num_bytes, len(content) - self.storage.start)
        if end > available:
            raise ValueError(
                f"tensor {name[:200]!r} reaches to byte {end:,} of a storage of {available:,}: the file is damaged"
            )
        strides = tuple(step * dtype.itemsize for step in self.strides)
        start = self.storage.start + self.offset * dtype.itemsize
        array = native(np.ndarray(self.shape, dtype, content, start, strides))
        array = np.conjugate(array) if self.conjugated else array
        return np.negative(array) if self.negated else array


def known_names() -> dict[str, Callable[..., Any] | None]:
    """The names that the pickle of a state dict may hold, and what we make of a call of each."""
    return {
        **_REBUILT,
        "torch._tensor._rebuild_from_type_v2": _from_type,
        "torch.Tensor": None,
        "torch.nn.parameter.Parameter": None,
        "torch.nn.parameter.Buffer": None,
        "torch.Size": tuple,
        "torch.device": _device,
        "collections.OrderedDict": _ordered_dict,
        "collections.defaultdict": lambda factory=None, pairs=(): _ordered_dict(
            pairs.items() if isinstance(pairs, dict) else pairs
        ),
        "collections.Counter": lambda counts=None: counts if isinstance(counts, dict) else {},
        "builtins.set": list,
        "__builtin__.set": list,
        **{f"torch.{name}": None for name in (*_STORAGES, *_DTYPES)},
        **{f"torch.cuda.{name}": None for name in _STORAGES},
        **dict.fromkeys(_UNTYPED),
    }


def storage(description: Any) -> Storage:
    """What ``("storage", type, key, device, number of elements[, view])`` stands for."""
    if not isinstance(description, tuple) or not description or description[0] != "storage":
        raise ValueError("it refers to something that is no storage of numbers; save model.state_dict() alone")
    _, kind, key, _, count, *view = description
    _check_integers(count)
    if not isinstance(kind, Global) or not isinstance(key, str):
        raise ValueError("it describes a storage in an unknown way")
    name = kind.name.rsplit(".", 1)[-1]
    if kind.name not in _UNTYPED and name not in _STORAGES:
        raise ValueError(f"a storage is said to be a {kind.name}")
    dtype = _dtype(_STORAGES.get(name, "uint8"))
    offset = 0
    if view and view[0] is not None:
        _, offset, count = view[0]
        _check_integers(offset, count)
    return Storage(key, dtype, offset * dtype.itemsize, count * dtype.itemsize)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, metadata: Any = None
) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("it describes a tensor in an unknown way")
    _check_integers(offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 64:
        raise ValueError(f"a tensor has {len(shape)} axes and {len(strides)} strides")
    return Tensor(storage, storage.dtype, offset, shape, strides, **_put_off(metadata))


def _put_off(metadata: Any) -> dict[str, bool]:
    """What torch writes of a tensor that is the conjugate or the negative of the numbers in its storage."""
    flags = {} if metadata is None else metadata
    if not isinstance(flags, dict) or not set(flags) <= {"conj", "neg"}:
        raise ValueError(f"a tensor has metadata {str(metadata)[:80]}, which may change its numbers and is not known")
    return {"conjugated": bool(flags.get("conj")), "negated": bool(flags.get("neg"))}


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    """A tensor whose storage is bytes, for dtypes that have no storage class."""
    if not isinstance(dtype, Global) or dtype.name.removeprefix("torch.") not in _DTYPES:
        raise ValueError("a tensor has a dtype that is not read")
    tensor = _tensor(storage, offset, shape, strides, metadata=metadata)
    return dataclasses.replace(tensor, dtype=_dtype(dtype.name.removeprefix("torch.")))


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    stands_for = _REBUILT.get(function.name) if isinstance(function, Global) else None
    if stands_for is None or not isinstance(arguments, tuple):
        raise ValueError("it rebuilds a tensor in an unknown way")
    return stands_for(*arguments)


_REBUILT: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, requires_grad, hooks, state: data,
}


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    made = {}
    for key, value in pairs:
        if not isinstance(key, str | int):  # hashing a nested key could take for ever
            raise ValueError(f"a key is a {type(key).__name__}; names are text or integers")
        made[key] = value
    return made


def _device(kind: Any = "cpu", index: Any = None) -> str:
    return kind if isinstance(kind, str) else "device"


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def _check_integers(*numbers: Any) -> None:
    if not all(type(x) is int and 0 <= x < 2**63 for x in numbers):
        raise ValueError("sizes, strides and offsets are not all integers >= 0")
