"""Data sets on the device and streams: arrays, TFDS, folders of pictures, few-shot splits."""

from bayestl.data._arrays import ArrayData, arrays, stack
from bayestl.data._folder import folder
from bayestl.data._load import load
from bayestl.data._pictures import decode_picture
from bayestl.data._records import Records
from bayestl.data._splits import Split, few_shot, split
from bayestl.data._stream import StreamData, stream
from bayestl.data._tfds import tfds

__all__ = [
    "ArrayData",
    "Records",
    "Split",
    "StreamData",
    "arrays",
    "decode_picture",
    "few_shot",
    "folder",
    "load",
    "split",
    "stack",
    "stream",
    "tfds",
]
