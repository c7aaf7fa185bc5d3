"""Packages in torch that ours is compared with, where they are installed."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any


def peer(name: str) -> Any:
    """A package in torch, or None."""
    # torchvision's own operators, for detection, are compiled for one build of torch; nothing here uses them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None
