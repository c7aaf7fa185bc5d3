"""Data sets on the device: arrays, few-shot splits."""

from bayestl.data._arrays import ArrayData, arrays, stack
from bayestl.data._splits import Split, few_shot, split

__all__ = ["ArrayData", "Split", "arrays", "few_shot", "split", "stack"]
