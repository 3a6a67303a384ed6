"""pyroute2 in parts.

``import pyroute2`` imports every part of it, a database among them: 5 MiB of memory, and a tenth of a second
each time that a process starts. Here the package is there without that, and each part comes when it is asked
for. Whoever asks for a name that is no part gets the package as it is.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType

_PACKAGE = "pyroute2"


def import_in_parts() -> None:
    """From here on; nothing changes where the package is imported already."""
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def look(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        part = _part(name)
        if part is None:
            del package.__dict__["__getattr__"]
            loader.exec_module(package)
            return getattr(package, name)
        return part

    package.__dict__["__getattr__"] = look
    sys.modules[_PACKAGE] = package


def _part(name: str) -> ModuleType | None:
    full_name = f"{_PACKAGE}.{name}"
    try:
        return importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name != full_name:
            raise
        return None
