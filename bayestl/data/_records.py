"""The records of a prepared data set, read one by one."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import numpy as np
from jaxtyping import Int

from bayestl.data._tfrecord import tfrecords


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Records with random access, from :func:`tfds` or :func:`folder`; give it to :func:`stream` or :func:`load`.

    Attributes:
        features: TFDS's description of a record; ``features["label"].names`` are the classes.
        skipped: names of the pictures that were left out on request.
    """

    features: Any
    skipped: tuple[str, ...] = dataclasses.field(repr=False)
    _raw: Any = dataclasses.field(repr=False)
    _decoders: Any = dataclasses.field(repr=False)
    _rows: Int[np.ndarray, " rows"] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        record = self.features.deserialize_example_np(self._raw[self._at(row)], decoders=self._decoders)
        for name, feature in self.features.items():
            _check_channels(name, feature, record[name])
        return record

    def column(self, name: str) -> np.ndarray:
        """One feature of all records, without decoding the others: labels for :func:`few_shot`, say.

        Raises:
            ValueError: no such feature.
        """
        import tensorflow_datasets as catalogue

        if name not in self.features:
            raise ValueError(f"the records have no feature {name!r}; they have {', '.join(sorted(self.features))}")
        skip = catalogue.decode.SkipDecoding()
        decoders = {other: skip for other in self.features if other != name}
        column = [
            self.features.deserialize_example_np(self._raw[self._at(row)], decoders=decoders)[name]
            for row in range(len(self))
        ]
        return np.asarray(column)

    def take(self, rows: Any) -> Records:
        """Only the records in ``rows``, in their order.

        Raises:
            ValueError: no rows, or one outside the data set.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"rows has shape {rows.shape} and dtype {rows.dtype}; give row numbers, integers (n,)")
        if rows.min() < 0 or rows.max() >= len(self):
            raise ValueError(f"rows run from {rows.min()} to {rows.max()}; there are records 0, ..., {len(self) - 1}")
        return dataclasses.replace(self, _rows=self._rows[rows])

    def _at(self, row: int) -> int:
        row = operator.index(row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} records")
        return int(self._rows[row])


def records(builder: Any, split: str, decoders: Any = None, skipped: tuple[str, ...] = ()) -> Records:
    """The records of one split of a prepared TFDS builder.

    Raises:
        ValueError: an unknown split, or files in a format without random access.
    """
    import tensorflow_datasets as catalogue

    info = builder.info
    try:
        instructions = info.splits[split].file_instructions
    except Exception as error:
        raise ValueError(
            f"split {split!r} of {info.full_name} cannot be read: there are {', '.join(info.splits)}, and slices of "
            f"them such as 'train[:10%]' ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from None
    formats = {form.value for form in info.available_file_formats()}
    if "array_record" in formats:
        raw = builder.as_data_source(split, deserialize_method=catalogue.decode.DeserializeMethod.RAW_BYTES)
    elif "tfrecord" in formats:
        raw = tfrecords(instructions)
    else:
        raise ValueError(
            f"{info.full_name} was prepared as {', '.join(sorted(formats))}; prepare it as array_record: "
            "builder.download_and_prepare(file_format='array_record')"
        )
    return Records(info.features, skipped, raw, decoders, np.arange(len(raw)))


def _check_channels(name: str, feature: Any, value: Any) -> None:
    """Refuse a picture with other channels than its data set declares, which TFDS hands out as it is."""
    import tensorflow_datasets as catalogue

    if isinstance(feature, catalogue.features.Image) and isinstance(value, np.ndarray):
        declared: Any = feature.shape
        num_channels = declared[-1]
        if value.ndim == 3 and num_channels is not None and value.shape[-1] != num_channels:
            raise ValueError(
                f"{name!r} has shape {value.shape}, and the data set declares {num_channels} channels; decode it "
                f"yourself: decoders={{{name!r}: tfds.decode.SkipDecoding()}} and data.decode_picture"
            )
