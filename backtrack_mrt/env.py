"""The Gymnasium environment: one `gymnasium` episode is one trajectory, one step is one turn.

    env = gymnasium.make("backtrack_mrt/Backtrack-v0", render_mode="ansi")  # after `import backtrack_mrt.env`
    instruction, info = env.reset(seed=0)
    instruction, reward, terminated, truncated, info = env.step("## Step 1: …\\n\\\\boxed{4}")

An observation is the instruction of the next turn; it never tells whether an answer was right. The reward is the
outcome, given at the end. A trajectory that breaks the protocol is *terminated* with reward 0 and the violation's name
in `info`; one that uses up its token budget is *truncated*, and the answer that stands is graded.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from backtrack_mrt import plugins
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading import Verdict
from backtrack_mrt.hooks import uncallable
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ByteChat, Chat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.rollouts.prompts import Prompts, load_prompts
from backtrack_mrt.rollouts.rehearsal import rehearse_own
from backtrack_mrt.rollouts.rollout import cut, instruct, take
from backtrack_mrt.rollouts.text_space import TextSpace
from backtrack_mrt.runs.trace import render_trace
from backtrack_mrt.types import Completion, Finish, FloatArray, Problem, StopReason, TokenIds, Trajectory

Action = str | Completion
Judge = Callable[[Problem, str | None], float | str]
PROTOCOLS, GRADERS = "backtrack_mrt.envs", "backtrack_mrt.graders"


class Judged(Grader):
    """A grader that asks a function."""

    function: Judge

    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        judged = self.function(problem, answer)
        return Verdict(judged) if isinstance(judged, str) and judged in list(Verdict) else judged  # type: ignore[return-value]


def grader_for(grade: Grader | Judge | str | None) -> Grader:
    """The grader that is meant: see `EpisodeEnv`. Raises UserError for an unknown name."""
    if grade is None or isinstance(grade, str):
        return plugins.configured(plugins.load(GRADERS, grade or "math", Grader, "grade"), {}, "grade", Grader)  # type: ignore[type-abstract]
    if isinstance(grade, Grader):
        return grade
    if isinstance(grade, type) or not callable(grade):
        raise UserError("grade", grade, "neither a grader nor a function", "Pass one (not its class), or a name.")
    if reason := uncallable(grade, ("problem", "answer")):
        raise UserError("grade", grade, f"it {reason}", "Pass a function (problem, answer) → reward.")
    return Judged(function=grade)


class EpisodeEnv(gymnasium.Env[str, Any]):
    """One trajectory of `protocol` per episode.

    problems: drawn from uniformly at `reset`, unless `options={"problem": index or Problem}` names one.
    grade: what judges the answer that stands: a grader, its name, the path of its file, or a function (problem, answer)
    → reward from 0 to 1, or verdict. By default mathematics.
    chat: turns text into the tokens of a model. Without one, a token is a byte of UTF-8.
    `info` holds problem (its id), phase and max_new_tokens (of the turn asked for; None and 0 at the end), parsed and
    violation (of the turn just taken), stop, answer and verdict (None before the end).
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (Gymnasium's declaration)

    def __init__(
        self,
        protocol: EpisodeProtocol,
        problems: Sequence[Problem],
        prompts: Prompts,
        *,
        grade: Grader | Judge | str | None = None,
        chat: Chat | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError("render_mode", render_mode, "unknown mode", did_you_mean(str(render_mode), ["ansi"]))
        if isinstance(problems, str) or not isinstance(problems, Sequence):
            raise UserError("problems", problems, "not a list", "Pass Problem(id, question, answer), in a list.")
        if not len(problems):
            raise UserError("problems", problems, "there is no problem to solve", "Pass at least one.")
        if strange := [problem for problem in problems if not isinstance(problem, Problem)]:
            raise UserError("problems", strange[0], "not a Problem", "Pass Problem(id, question, answer).")
        if chat is not None and not all(hasattr(chat, name) for name in ("opening", "following", "encode", "decode")):
            raise UserError("chat", chat, "not a chat", "Pass ChatFormat(tokenizer), or leave it out.")
        self.problems = problems
        self.render_mode = render_mode
        self.observation_space = TextSpace()
        self.action_space = TextSpace(completions=True)
        self.grader = grader_for(grade)
        self.protocol = protocol.marked_by(self.grader.marker)
        self.dialogue = Dialogue(chat or ByteChat(), prompts.marked(self.protocol.marked))
        self._episode: Episode | None = None
        self._instruction_ids: TokenIds = ()
        self._trajectory: Trajectory | None = None

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory so far, token ids included; graded once it has ended."""
        if self._trajectory is None:
            raise ResetNeeded("there is no trajectory before `reset`")
        return self._trajectory

    @property
    def prefix_ids(self) -> TokenIds:
        """What a policy that acts in tokens continues: the trajectory and the instruction of the turn asked for."""
        return self.trajectory.token_ids + self._instruction_ids

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        problem = self._choose(options or {})
        self._episode = episode = Episode(self.protocol, problem)
        self._instruction_ids = instruct(episode, self.dialogue)
        self._trajectory = episode.trajectory()
        return self._observation(episode), self._info(episode)

    def step(self, action: object) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one turn, or those of a text that the protocol cuts into several. A text or completion that is too long
        is cut off where a model would have been; an action of another type is the violation `not_text`."""
        episode = self._episode
        if episode is None or episode.spec is None:
            raise ResetNeeded("the trajectory has ended or not begun: call `reset` first")
        chat, limit = self.dialogue.chat, episode.spec.max_new_tokens
        if isinstance(action, str):
            ids = (*chat.encode(action), chat.eos_id)
            completion = Completion(ids, (math.nan,) * len(ids), Finish.STOP)  # no policy sampled it
        else:
            completion = action if isinstance(action, Completion) else Completion((), (), Finish.STOP)
        if len(completion.token_ids) > limit:
            completion = Completion(completion.token_ids[:limit], completion.logprobs[:limit], Finish.LENGTH)
        if isinstance(action, str):
            pieces = cut(completion, self.protocol, self.dialogue, self.protocol.turns_left(episode.turns))
            take(episode, self.dialogue, pieces, self._instruction_ids)
        else:
            text = chat.decode(completion.token_ids) if isinstance(action, Completion) else None
            episode.advance(text, completion, self._instruction_ids)
        self._instruction_ids = instruct(episode, self.dialogue)
        self._trajectory = episode.trajectory()
        reward = 0.0
        if episode.stop is not None:
            self._trajectory = graded(self._trajectory, lambda answer: self.grader.grade(episode.problem, answer))
            reward = self._trajectory.outcome
        truncated = episode.stop is StopReason.BUDGET
        terminated = episode.stop is not None and not truncated
        return self._observation(episode), reward, terminated, truncated, self._info(episode)

    def render(self) -> str | None:  # type: ignore[override]
        """The trajectory so far as readable text ("ansi"), None without a render mode."""
        return render_trace(self.trajectory) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """End the grader's processes, if any were started."""
        self.grader.close()

    def _choose(self, options: Mapping[str, Any]) -> Problem:
        if not isinstance(options, Mapping):
            raise UserError("options", options, "not a mapping", 'Pass {"problem": a Problem or its index}.')
        for key in options:
            if key != "problem":
                raise UserError(f"options[{key!r}]", options[key], "unknown option", did_you_mean(key, ["problem"]))
        chosen = options.get("problem")
        if isinstance(chosen, Problem):
            return chosen
        if chosen is None:
            return self.problems[int(self.np_random.integers(len(self.problems)))]
        try:
            index = operator.index(chosen)
        except TypeError:
            index = -1
        if not 0 <= index < len(self.problems):
            known = f"0 … {len(self.problems) - 1}"
            raise UserError("options['problem']", chosen, "not a problem", f"Pass a Problem or its index, {known}.")
        return self.problems[index]

    def _observation(self, episode: Episode) -> str:
        """The instruction to follow next; "" at the end."""
        if episode.spec is None:
            return ""
        if episode.turns:
            return self.dialogue.instruction(episode.spec, episode.turns[-1].completion)
        return self.dialogue.prompts.opening(episode.spec.phase, episode.problem.question, episode.spec.fields)

    def _info(self, episode: Episode) -> dict[str, Any]:
        last = episode.turns[-1] if episode.turns else None
        return {
            "problem": episode.problem.id,
            "phase": episode.spec.phase if episode.spec else None,
            "max_new_tokens": episode.spec.max_new_tokens if episode.spec else 0,
            "parsed": last.parsed if last is not None else None,
            "violation": last.violation if last is not None else None,
            "stop": episode.stop,
            "answer": self.trajectory.answer,
            "verdict": self.trajectory.verdict,
        }


class ValueSource(Protocol):
    """What `ProgressReward` needs of a meta-prover."""

    def values(self, trajectories: Sequence[Trajectory]) -> Sequence[FloatArray]:
        """V_0 … V_E of each trajectory, shape (E+1,)."""


class ProgressReward(gymnasium.Wrapper[str, Any, str, Any]):
    """Dense reward: α · progress of the turn, plus the outcome at the end. Progress is V_{j+1} − V_j by `prover`, whose
    tokens must be those of the environment's chat. `info` gains value (V_{j+1}) and progress."""

    def __init__(self, env: gymnasium.Env[str, Any], prover: ValueSource, alpha: float = 1.0) -> None:
        super().__init__(env)
        self.prover, self.alpha = prover, alpha
        self._value = math.nan

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=dict(options) if options else None)
        self._value = self._latest_value()
        return observation, {**info, "value": self._value}

    def step(self, action: object) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, outcome, terminated, truncated, info = self.env.step(action)
        before, self._value = self._value, self._latest_value()
        progress = self._value - before
        info = {**info, "value": self._value, "progress": progress}
        return observation, float(outcome) + self.alpha * progress, terminated, truncated, info

    def _latest_value(self) -> float:
        return float(self.prover.values([self.env.unwrapped.trajectory])[0][-1])  # type: ignore[attr-defined]


def make(
    protocol: str,
    problems: Sequence[Problem] | None = None,
    *,
    prompts: str = "instruct",
    grade: Grader | Judge | str | None = None,
    chat: Chat | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> EpisodeEnv:
    """The environment of a protocol, by name or as the path of a file: on generated problems unless some are given.
    `prompts`: a style, or the path of a folder. `settings` are the protocol's own (`token_budget=…`)."""
    chosen = plugins.load(PROTOCOLS, protocol, EpisodeProtocol, "env")  # type: ignore[type-abstract]
    env = EpisodeEnv(
        plugins.configured(chosen, settings, plugins.label(protocol), EpisodeProtocol),
        signs.generate("train", 256, seed=0) if problems is None else problems,
        load_prompts(protocol, prompts),
        grade=grade,
        chat=chat,
        render_mode=render_mode,
    )
    rehearse_own(env.protocol, env.dialogue.prompts, env.problems[0])
    return env


def check(protocol: EpisodeProtocol, prompts: Prompts) -> None:
    """Have Gymnasium check the protocol's environment. Raises UserError for whatever it objects to."""
    env = EpisodeEnv(protocol, signs.generate("train", 1, seed=0), prompts, render_mode="ansi")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env, skip_render_check=True)
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(
            "env", type(protocol).__name__, f"Gymnasium objects: {said}", "See docs/protocols.md."
        ) from error
    finally:
        env.close()


def environment_id(protocol: str) -> str:
    """Gymnasium's id of a protocol: ``open-ended`` → ``backtrack_mrt/OpenEnded-v0``."""
    return f"backtrack_mrt/{protocol.replace('_', '-').title().replace('-', '')}-v0"


for _name in plugins.names(PROTOCOLS):
    if environment_id(_name) not in gymnasium.registry:
        gymnasium.register(environment_id(_name), entry_point="backtrack_mrt.env:make", kwargs={"protocol": _name})
