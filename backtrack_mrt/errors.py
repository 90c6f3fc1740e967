"""What ends a program early: told in one sentence, and turned into an exit code in one place."""

from __future__ import annotations

import difflib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_VALUE = 300  # characters of a value that a message shows
NO_VALUE = object()  # of a field that was not given, or takes none


class UserError(Exception):
    """Bad input: names the field or file, the value (if it has one), the reason and the remedy."""

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        self.field, self.value, self.reason, self.remedy = field, value, reason, remedy
        shown = repr(value).replace("\n", " ")
        shown = shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]}…"
        what = field if value is NO_VALUE else f"{field} = {shown}"
        super().__init__(f"{what}: {reason.rstrip('.')}. {remedy}")  # a library's word may be a sentence

    @property
    def mistakes(self) -> tuple[UserError, ...]:
        """One or, if it is `UserErrors`, several."""
        return (self,)


class UserErrors(UserError):
    """Several mistakes, one a line. The fields are those of the first."""

    def __init__(self, mistakes: Sequence[UserError]) -> None:
        first = mistakes[0]
        super().__init__(first.field, first.value, first.reason, first.remedy)
        self.args = ("\n".join(map(str, mistakes)),)
        self._mistakes = tuple(mistakes)

    @property
    def mistakes(self) -> tuple[UserError, ...]:
        return self._mistakes


class Mistakes(list[UserError]):
    """What is wrong so far, to be told at once."""

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Go on behind a UserError that is raised inside, and keep it."""
        try:
            yield
        except UserError as error:
            self += error.mistakes

    def tell(self) -> None:
        """Raise what was found, if anything was; a single mistake as it is."""
        distinct = list({str(mistake): mistake for mistake in self}.values())
        if distinct:
            raise distinct[0] if len(distinct) == 1 else UserErrors(distinct)


class RunError(Exception):
    """What stops a run that was asked for rightly, such as a full disk: what happened, and the remedy. Exit code 1."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(f"{reason.rstrip('.')}. {remedy}")


class Collapsed(RunError):
    """A training that broke down by itself: its numbers are no longer finite, or nothing is left to fit. Other settings
    may do better."""


class Interrupted(BaseException):
    """Somebody asked the program to stop. Raised at a safe point only: see `backtrack_mrt.runs.interrupts`."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"interrupted (exit code {code})")


def short(value: object) -> str:
    """What a message shows of something that a plug-in gave or raised: one line, cut off where it is long."""
    return " ".join(str(value).split())[:60]


def in_words(error: BaseException) -> str:
    """What was raised: its kind, and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the closest known name if there is one, then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or '(none)'}."


def run_main(main: Callable[[], int | None]) -> None:
    """Run a program's ``main`` and exit with its code. A `UserError` is one line on stderr for each mistake
    and exit code 2, a `RunError` or what the system refuses one line and exit code 1 (2 for a name too long)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started the program, such as cron
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode shows question marks
            stream.reconfigure(errors="replace")
    try:
        code = _exit_code(lambda: _flushed(main()))
        sys.stdout.flush()  # what was printed before a mistake
    except OSError as error:  # the reader of our output went away (`… | head`), or has no room
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141 if isinstance(error, BrokenPipeError) else 1
    sys.exit(code)


def _flushed(code: int | None) -> int | None:
    sys.stdout.flush()  # a reader who has gone away, or a full disk, is noticed here, not while Python ends
    return code


def _exit_code(main: Callable[[], int | None]) -> int | str | None:
    try:
        return main() or 0
    except SystemExit as stop:  # argparse's, behind --help
        return stop.code
    except (UserError, RunError) as error:
        for told in error.mistakes if isinstance(error, UserError) else (error,):
            print(f"error: {told}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        if error.filename is None:
            full = error.errno in NO_SPACE
            reason = f"what is written has no room: {error.strerror}. Free some space." if full else in_words(error)
            print(f"error: {reason}", file=sys.stderr)
            return 1
        name = str(error.filename)
        shown = name if len(name) <= LONGEST_VALUE else f"{name[:LONGEST_VALUE]}…"
        print(f"error: {shown} cannot be used: {error.strerror}.", file=sys.stderr)
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    except Interrupted as stop:
        return stop.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
