"""How the program treats the machine that it runs on: it tells nobody that it runs, and leaves room for others.

Libraries read these settings from the environment when they are imported, so `prepare` is called where a program
starts, before torch is. What the user has set stays.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.hub import hub_address

_TELEMETRY = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")  # any of them speaks for the user
# Threads of OpenMP wait for each other many thousand times a second, by default in a busy loop of some milliseconds.
# Beside other programs the one that is waited for has no core then, and a step of seconds does not end in minutes.
# Threads that sleep at once lose a third of an idle machine's speed; these spin for some microseconds first.
_WAITING = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}  # GNU's and Intel's
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # buffers of its own for every stream: sums in a fixed order
# Importing the libraries makes a million objects that stay. Python would look through them again and again for garbage:
# a quarter of the time that a training takes to start.
_OFTEN, _SELDOM = (700, 10, 10), (50_000, 20, 100)  # new objects, collections of them, collections of those
# The arrays of an update and of a rollout come and go by megabytes. What glibc gives back to the system meanwhile comes
# anew and page by page: a fifteenth of an update, a thirtieth of a rollout.
_KEPT = {-1: 512 * 2**20, -2: 64 * 2**20, -3: 256 * 2**20}  # mallopt's trim threshold, top pad, mmap threshold
_MUCH = 2**30  # bytes; less is had anew by every step
_OF_MALLOC = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_")
_NEEDED_BY_FEW = "bitsandbytes"  # other libraries import it wherever it is installed, and it takes most of a second
_OF_NO_USE = {  # logger → how what it says begins
    # Wherever `kernels` is missing: only its fast path for some CPUs would use that, and it is off here.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    # Wherever it is installed and there is no GPU, on the output, between what a command prints.
    "DeepSpeed": "Setting accelerator to CPU",
}
_TRL_ON_VLLM = "TRL currently supports vLLM versions"  # for its own use of vLLM, which is none here


def prepare() -> None:
    """Switch off the reports of use that libraries send and warnings that are about nothing here, have waiting
    threads sleep soon and a GPU's products repeat, keep freed memory for what comes next, make the libraries' imports
    cheaper. Does nothing the second time. Raises UserError for a setting with which the libraries cannot be
    imported."""
    hub_address()
    if sys.flags.optimize > 1:
        raise UserError(
            "PYTHONOPTIMIZE", 2, "transformers cannot be imported without docstrings", "Set it to 1 at most."
        )
    if not any(name in os.environ for name in _TELEMETRY):
        os.environ[_TELEMETRY[0]] = "1"
        if constants := sys.modules.get("huggingface_hub.constants"):
            constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    if not {*_WAITING, "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ |= _WAITING
    os.environ.setdefault(*_CUBLAS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # which other systems than glibc's have not
    if mallopt and not any(name in os.environ for name in _OF_MALLOC):
        for setting, size in _KEPT.items():
            mallopt(setting, size)
    if gc.get_threshold() == _OFTEN:
        gc.set_threshold(*_SELDOM)
    import_late(_NEEDED_BY_FEW)
    for name in _OF_NO_USE:
        logging.getLogger(name).addFilter(_is_of_use)
    warnings.filterwarnings("ignore", message=_TRL_ON_VLLM)


def give_back() -> None:
    """Where much memory has been freed and kept for what comes next, let the system have it: something else comes."""
    libc = ctypes.CDLL(None)
    if told := getattr(libc, "mallinfo2", None):
        told.restype = _Mallinfo2
        if told().fordblks > _MUCH:
            libc.malloc_trim(0)


class _Mallinfo2(ctypes.Structure):
    """glibc's: `fordblks` are the bytes that are free."""

    _fields_ = (("others", ctypes.c_size_t * 8), ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))


def _is_of_use(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_OF_NO_USE[record.name])


@contextmanager
def importing() -> Iterator[None]:
    """While libraries are imported that take seconds: nobody looks for garbage in what will stay, and the list of all
    installed packages, which transformers and TRL each ask for, is made once."""
    listed, collecting = importlib.metadata.packages_distributions, gc.isenabled()
    importlib.metadata.packages_distributions = cache(listed)
    gc.disable()
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = listed
        if collecting:
            gc.enable()


@cache
def settle() -> None:
    """What has been imported by now is no garbage: collections, of which trainers ask for some, pass it by from here
    on. Once, before a model is loaded: what is frozen is never freed."""
    gc.freeze()


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
