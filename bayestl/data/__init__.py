"""Data sets on the device and streams: arrays, TFDS, folders of pictures, texts; splits; augmentation; shifts."""

from bayestl.data import text
from bayestl.data._arrays import ArrayData, arrays, stack
from bayestl.data._augment import compose, normalize
from bayestl.data._augment_affine import affine
from bayestl.data._augment_colour import color_jitter
from bayestl.data._augment_crop import random_crop
from bayestl.data._corrupt import CORRUPTIONS, corrupt
from bayestl.data._folder import folder
from bayestl.data._label_shift import label_shift
from bayestl.data._load import load
from bayestl.data._pictures import decode_picture
from bayestl.data._precompute import precompute
from bayestl.data._records import Records
from bayestl.data._splits import Split, few_shot, split
from bayestl.data._stream import StreamData, stream
from bayestl.data._tfds import tfds

__all__ = [
    "CORRUPTIONS",
    "ArrayData",
    "Records",
    "Split",
    "StreamData",
    "affine",
    "arrays",
    "color_jitter",
    "compose",
    "corrupt",
    "decode_picture",
    "few_shot",
    "folder",
    "label_shift",
    "load",
    "normalize",
    "precompute",
    "random_crop",
    "split",
    "stack",
    "stream",
    "text",
    "tfds",
]
