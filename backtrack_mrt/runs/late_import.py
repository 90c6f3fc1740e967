"""Libraries that are found at once, and read when they are first used."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class LateModule(ModuleType):
    """A module that knows where it is; asked for more, it is executed. (`lazy_loader.load` makes such modules, too, but
    those are executed already when `inspect` goes through all modules and asks for their files.)"""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def import_late(name: str) -> None:
    """Have `import NAME` wait for the first use of the module. Does nothing where it is not installed, or is imported
    already."""
    if name not in sys.modules and (spec := find_spec(name)):
        module = sys.modules[name] = module_from_spec(spec)
        module.__class__ = LateModule
