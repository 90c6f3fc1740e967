"""The compiled passes (c/forward.c, c/update.c and c/output.c): built once per machine with its C compiler, or absent.

Nothing of it is needed: without a compiler the model's own modules run.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from ctypes import CDLL, POINTER, Structure, c_float, c_long, c_void_p
from functools import cache
from importlib.resources import files
from pathlib import Path

from backtrack_mrt.runs import processes
from backtrack_mrt.runs.cores import cores

_COMPILERS = ("cc", "gcc", "clang")
# OpenMP is compiled in and not linked: its symbols are those of the runtime that torch has loaded, so both have one
# pool of threads, of the size that torch was told.
_FLAGS = ("-O2", "-fPIC", "-fopenmp")
_NATIVE = "-march=native"
_PATIENCE = 120  # seconds
_all_threads: ContextVar[int] = ContextVar("all_threads", default=0)  # outside of the blocks in free cores


class Linear(Structure):
    """See c/linear.h; those that follow are in c/attention.h."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inputs", c_long), ("outputs", c_long))


class DecoderLayer(Structure):
    _fields_ = (
        *((name, Linear) for name in ("qkv", "o", "gate_up", "down")),
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")),
    )


class Model(Structure):
    _fields_ = (
        *((name, c_long) for name in ("layers", "width", "heads", "kv_heads", "depth")),
        ("eps", c_float),
        ("scale", c_float),
        ("layer", POINTER(DecoderLayer)),
        ("norm", c_void_p),
        ("head", Linear),
    )


class Pass(Structure):
    _fields_ = (
        *((name, c_long) for name in ("tokens", "kept", "rows", "slots")),
        *((name, c_void_p) for name in ("row", "slot", "seen", "offsets", "extra", "keep", "lead", "shared")),
        *((name, c_void_p) for name in ("cos", "sin")),
        ("cache", POINTER(c_void_p)),
    )


class Adapted(Structure):
    """See c/adapted.h; those that follow are in c/rows.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias", "a", "b")),
        *((name, c_long) for name in ("inputs", "outputs", "rank")),
        ("scale", c_float),
    )


class TrainedLayer(Structure):
    _fields_ = (
        ("part", Adapted * 7),
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")),
        *((name, c_long) for name in ("width", "inner", "heads", "kv_heads", "depth")),
        ("eps", c_float),
        ("scale", c_float),
    )


class RowTable(Structure):
    _fields_ = (
        *((name, c_long) for name in ("tokens", "groups", "longest")),
        *((name, c_void_p) for name in ("first", "own", "count", "seen", "offsets", "extra", "cos", "sin")),
    )


class Kept(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("x", "middle", "qkv", "mixed", "softened", "gate_up"))


class Output(Structure):
    """See c/output.c."""

    _fields_ = (("weight", c_void_p), ("vocabulary", c_long), ("width", c_long), ("scale", c_float))


class AskedTokens(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("states", "row", "target")),
        ("tokens", c_long),
        *((name, c_void_p) for name in ("logit", "largest", "total", "weighed", "direction")),
    )


@cache
def library() -> CDLL | None:
    """The compiled functions; None, and one line on stderr, where they cannot be had."""
    there = next((name for name in _COMPILERS if shutil.which(name)), _COMPILERS[0])
    said = ""
    for flags in ((*_FLAGS, _NATIVE), _FLAGS):
        try:
            compiler = shlex.split(os.environ.get("CC", "")) or [there]
            found = _compiled([*compiler, *flags])
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = _said(error)
            if isinstance(error, subprocess.TimeoutExpired):
                break
        else:
            return _declared(found)
    told = f"no C compiler that works here ({said}): steps take more than twice as long ($CC names one)"
    processes.tell(told, file=sys.stderr)
    return None


@contextmanager
def in_free_cores(code: CDLL | None) -> Iterator[None]:
    """Within the block torch and the functions of `code` have no more threads than there are free cores, counted anew
    where a block within it begins; for a model without compiled code all stays as it is.

    By any number of threads the functions compute the same, bit for bit. So do torch's products, copies and whatever
    goes row by row; sums over all of a large tensor do not, and belong outside."""
    if code is None:
        yield
        return
    outer = _all_threads.get()
    all_threads = outer or code.set_threads(0)
    token = _all_threads.set(all_threads)
    code.set_threads(min(cores().free, all_threads))
    try:
        yield
    finally:
        _all_threads.reset(token)
        if not outer:
            code.set_threads(all_threads)


def _declared(code: CDLL) -> CDLL:
    """The functions with the types of their arguments."""
    code.set_threads.restype, code.set_threads.argtypes = c_long, (c_long,)
    code.lanes.restype, code.room.restype, code.forward.restype = c_long, c_long, None
    code.room.argtypes = (POINTER(Model), POINTER(Pass))
    code.forward.argtypes = (*code.room.argtypes, c_void_p, c_void_p, c_void_p)
    code.layer_room.restype, code.layer_forward.restype, code.layer_backward.restype = c_long, None, None
    code.layer_room.argtypes = (POINTER(TrainedLayer), POINTER(RowTable))
    code.layer_forward.argtypes = (*code.layer_room.argtypes, POINTER(Kept), c_void_p, c_void_p)
    code.layer_backward.argtypes = (*code.layer_room.argtypes, POINTER(Kept), c_void_p, c_void_p, c_void_p, c_void_p)
    code.output_room.restype, code.output_room.argtypes = c_long, (POINTER(Output),)
    code.ask_output.restype, code.ask_output.argtypes = None, (POINTER(Output), POINTER(AskedTokens), c_void_p)
    return code


def _said(error: Exception) -> str:
    """What went wrong, in a few words: the compiler's own where it has said something."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it takes more than {_PATIENCE} seconds"
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    lines: list[str] = error.stderr.decode(errors="replace").splitlines()
    return ([line for line in lines if "error" in line] or lines or [f"exit code {error.returncode}"])[0][:200]


def _compiled(command: list[str]) -> CDLL:
    """The functions as this command compiles them: from the user's cache, or anew where it has no room for files.
    Raises OSError and subprocess.SubprocessError."""
    sources = {file.name: file.read_bytes() for file in files(__package__).joinpath("c").iterdir() if file.is_file()}
    key = hashlib.sha256(repr([sorted(sources.items()), command]).encode() + _machine()).hexdigest()[:16]
    with suppress(OSError):
        for kept in _cache().glob(f"kernels-{key}-*.so"):
            if kept == _kept(key, kept):
                return CDLL(str(kept))
    with tempfile.TemporaryDirectory() as scratch:
        built = _build(sources, command, Path(scratch))
        with suppress(OSError):
            _keep(built, kept := _kept(key, built))
            return CDLL(str(kept))  # from there, since some systems run nothing that lies in /tmp
        return CDLL(str(built))


def _cache() -> Path:
    """Where compiled files are kept. Raises OSError for a user without a home, as containers have them."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backtrack-mrt"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error


def _kept(key: str, file: Path) -> Path:
    """Where this file is kept. Its name tells its content: half a file, as a crash leaves it, kills who loads it."""
    return _cache() / f"kernels-{key}-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.so"


def _keep(built: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as beside:  # another process may do the same
        shutil.copyfile(built, Path(beside) / place.name).replace(place)


def _machine() -> bytes:
    """What the compiler makes native code for: a home directory may be seen by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kind = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})
    return repr([platform.machine(), platform.system(), platform.processor(), kind]).encode()


def _build(sources: Mapping[str, bytes], command: Sequence[str], folder: Path) -> Path:
    """Compile in this folder."""
    for name, source in sources.items():
        (folder / name).write_bytes(source)
    objects, whole = [], folder / "kernels.so"
    for name in sorted(name for name in sources if name.endswith(".c")):
        objects.append(folder / f"{name}.o")
        _run([*command, "-c", folder / name, "-o", objects[-1]])
    _run([*(part for part in command if part != "-fopenmp"), "-shared", *objects, "-o", whole])
    return whole


def _run(command: Sequence[str | Path]) -> None:
    subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE)
