"""The terminal's side of `backtrack-mrt play`: reads turns and commands, shows what happened, saves trajectories."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

with suppress(ImportError):  # not everywhere; with it `input` has editing and a history
    import readline  # noqa: F401

from rich.console import Console
from rich.text import Text

from backtrack_mrt.cli.game import Game, shown_tokens
from backtrack_mrt.cli.places import check_file, typed_path
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.runs.records import append_trajectories, read_trajectories
from backtrack_mrt.runs.trace import ending, problem_block, render_trace, turn_block, visible
from backtrack_mrt.types import Problem, Scored, StopReason

HELP = """\
Type a turn; an empty line ends it. For an empty line within a turn type a line with nothing but \\
Commands, in place of a turn:
  :model [all]    the model takes this turn, or all that are left
  :undo           take the last move back
  :tokens [ids]   all that the model sees, special tokens in ⟦⟧; or every token with its id
  :trace          the trajectory so far
  :new [PROBLEM]  the next problem, or the one with this id or index
  :save FILE      append the trajectory to FILE
  :quit           leave, as does Ctrl-D; Ctrl-C leaves at any time
A turn that begins with a colon: type two."""
NEXT = ":new, :undo, :save FILE or :quit"


Said = str | tuple[str, str]  # a turn; or a line that begins with a colon: a command and its argument


class Session:
    """Problems played one after the other.

    problems: those to choose from, asked for when they are wanted. begin: makes the game of a problem. chat: whose
    tokens are shown. watch: Enter lets the model take the turn; without a terminal it takes all. save: where
    trajectories are appended when they are left. ids: show every token's.
    """

    def __init__(
        self,
        problems: Callable[[], Sequence[Problem]],
        begin: Callable[[Problem], Game],
        chat: ChatFormat,
        *,
        watch: bool = False,
        save: Path | None = None,
        ids: bool = False,
    ) -> None:
        self.problems, self.begin, self.chat, self.watch, self.save, self.ids = problems, begin, chat, watch, save, ids
        self.console = Console(highlight=False, soft_wrap=True)
        self.interactive = sys.stdin.isatty()
        self.unsaved: list[Scored] = []
        self.saved: Scored | None = None  # the last one that was written
        if not self.interactive and hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")

    def run(self, first: Problem) -> None:
        """Play until the input ends. Raises KeyboardInterrupt for Ctrl-C, when nothing can be lost any more."""
        self._open(first)
        try:
            if self.watch and not self.interactive:
                self._sample(to_the_end=True)
            else:
                while self._act(self._read()):
                    pass
        except EOFError:
            pass
        finally:
            self._leave()

    def _open(self, problem: Problem) -> None:
        self.game = self.begin(problem)
        self._say(problem_block(problem), "bold")
        if (values := self.game.scored.values) is not None:
            self._say(f"V {values[0]:.2f} before the first turn", "dim")
        self._ask()

    def _ask(self) -> None:
        """Show how it ended; or what the model sees, and what is wanted of it."""
        game, spec = self.game, self.game.spec
        if spec is None:
            self._say(f"\n{ending(game.trajectory)}", "bold")
            if game.trajectory.stop is StopReason.BUDGET and game.budget_left:
                self._say("The model's context is full.")
            self._hint(NEXT)
            return
        self._say("\nThe model sees, from here on:" if game.trajectory.turns else "\nThe model sees:", "dim")
        self._say(shown_tokens(game.asked_ids, self.chat, self.ids), "cyan")
        left = f"at most {spec.max_new_tokens} tokens, {game.budget_left} left of the budget"
        how = "Enter for the model's turn, or type it" if self.watch else "an empty line ends it"
        self._hint(f"\n{visible(spec.phase)}: {left}; {how}; :help")

    def _read(self) -> Said:
        """A turn or a command. Raises EOFError at the end of the input."""
        lines: list[str] = []
        while True:
            try:
                line = self._line("… " if lines else "> ")
            except EOFError:
                if not lines:
                    raise
                break
            if not lines and line.startswith(":") and not line.startswith("::"):
                name, _, argument = line[1:].partition(" ")
                return name, argument.strip()
            if line:
                lines.append("" if line == "\\" else line)
            elif lines:
                break
            elif self.watch:
                return "model", ""
        text = "\n".join(lines)
        return text[1:] if text.startswith("::") else text

    def _line(self, prompt: str) -> str:
        if self.interactive:
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _act(self, said: Said) -> bool:
        """Do what was said. Returns False to leave."""
        match said:
            case str(text):
                self._type(text)
            case ("model", "" | "all" as how):
                self._sample(to_the_end=how == "all")
            case ("undo", ""):
                self._say("" if self.game.undo() else "There is nothing to take back.")
                self._ask()
            case ("tokens", "" | "ids" as how):
                self._say(shown_tokens(self.game.seen_ids, self.chat, bool(how) or self.ids), "cyan")
            case ("trace", ""):
                self._say(render_trace(self.game.trajectory, self.game.scored.values))
            case ("new", wanted):
                self._next(wanted)
            case ("save", name) if name:
                self._write(typed_path(name), [self.game.scored])
            case ("quit", ""):
                return False
            case _:
                self._say(HELP)
        return True

    def _type(self, text: str) -> None:
        if self.game.spec is None:
            self._say(f"The trajectory has ended: {NEXT}")
            return
        self._show(self.game.type, text)

    def _sample(self, to_the_end: bool) -> None:
        if self.game.model is None:
            self._say("There is no model: start without --no-model.")
        elif self.game.spec is None:
            self._say(f"The trajectory has ended: {NEXT}")
        else:
            self._show(self.game.sample)
            while to_the_end and self.game.spec is not None:
                self._show(self.game.sample)

    def _show(self, move: Callable[..., None], *arguments: str) -> None:
        """Make a move, and show the turns it made and what is next."""
        before = len(self.game.trajectory.turns)
        move(*arguments)
        trajectory, values = self.game.trajectory, self.game.scored.values
        for j in range(before, len(trajectory.turns)):
            self._say(f"\n{turn_block(trajectory, j, values)}", "red" if trajectory.turns[j].violation else "")
        if why := self.game.why():
            self._say(f"Why: {visible(why)}", "red")
        elif steps := self.game.standing():
            self._say(f"{len(steps)} step{'s' * (len(steps) > 1)} standing", "dim")
        self._ask()

    def _next(self, wanted: str) -> None:
        now = self.game.trajectory.problem.id
        try:
            problems = self.problems()
            ids = [problem.id for problem in problems]
            after = (ids.index(now) + 1) % len(ids) if now in ids else 0
            problem = choose(problems, wanted) if wanted else problems[after]
        except UserError as error:
            self._say(visible(str(error)))
            return
        self._keep()
        self._open(problem)

    def _keep(self) -> None:
        """The game is left: its trajectory goes to the file, or is remembered for the end."""
        scored = self.game.scored
        if not scored.trajectory.turns or scored is self.saved:
            return
        if self.save is None or not self._write(self.save, [scored]):
            self.unsaved.append(scored)

    def _leave(self) -> None:
        """Offer to save what was not saved. A further Ctrl-C, or an empty name, says no."""
        self._hint("")
        self._keep()
        with suppress(EOFError, KeyboardInterrupt):
            while self.unsaved and self.interactive:
                name = input(f"save {len(self.unsaved)} unsaved as (empty: do not): ").strip()
                if not name or self._write(typed_path(name), self.unsaved):
                    return

    def _write(self, path: Path, scored: Sequence[Scored]) -> bool:
        """Append to a file and say so; or say why not."""
        try:
            check_appendable(path, "FILE")
            append_trajectories(path, scored)
        except (UserError, OSError) as error:
            self._say(visible(str(error)))
            return False
        self.saved = scored[-1]
        self._say(f"{visible(str(path))}: {len(scored)} saved")
        return True

    def _hint(self, text: str) -> None:
        """Print what only a person needs."""
        if self.interactive:
            self._say(text, "dim")

    def _say(self, text: str, style: str = "") -> None:
        """Print; nothing in the text is taken for markup."""
        self.console.print(Text(text, style))


def choose(problems: Sequence[Problem], wanted: str) -> Problem:
    """The problem with this id or index. Raises UserError."""
    for problem in problems:
        if problem.id == wanted:
            return problem
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(problems):
        return problems[int(wanted)]
    known = f"Give an index from 0 to {len(problems) - 1}, or an id such as {problems[0].id}."
    raise UserError("PROBLEM", wanted, "there is no such problem in data.eval", known)


def check_appendable(path: Path, field: str) -> None:
    """Raises UserError for a file that trajectories cannot be appended to."""
    if path.exists():
        read_trajectories(path)
    check_file(field, path)
