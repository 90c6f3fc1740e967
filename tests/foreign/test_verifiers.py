"""Environments of verifiers as ours, and ours as theirs: `pip install 'backtrack-mrt[verifiers]'`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.source import Played, source
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.types import Completion, Finish, StopReason, Trajectory

pytest.importorskip("verifiers.v1", reason="pip install 'backtrack-mrt[verifiers]'")

SUMS = """
import verifiers.v1 as vf
from verifiers.v1.utils.score import verify_boxed_math_answer

__all__ = ["Sums"]

class SumData(vf.TaskData):
    answer: str

class SumTask(vf.Task[SumData]):
    @vf.reward
    async def right(self, task, trace) -> float:
        return verify_boxed_math_answer(trace.last_reply, task.answer)

class Sums(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        for n in range(40):
            asked = f"What is {n} + 1? Put it in a box."
            yield SumTask(SumData(prompt=asked, system_prompt="Be brief.", answer=str(n + 1)))
"""
GUESS = """
import random
import verifiers.v1 as vf

__all__ = ["Guess", "GuessEnv"]

class GuessData(vf.TaskData):
    seed: int

class GuessTask(vf.Task[GuessData]):
    pass

class GuessEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()

class GuessEnv(vf.Env[GuessEnvConfig]):
    async def run(self, task, agents):
        random.seed(task.data.seed)
        secret, tries = random.randint(1, 8), 0
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                tries += 1
                guess = int(segment.last_reply)
                if guess == secret:
                    break
                segment = await interaction.turn("higher" if guess < secret else "lower")
        interaction.trace.record_reward("found", 1.0 / tries)

class Guess(vf.Taskset[GuessTask, vf.TasksetConfig]):
    INFINITE = True
    def load(self):
        n = 0
        while True:
            yield GuessTask(GuessData(prompt="Guess a number from 1 to 8.", seed=n))
            n += 1
"""
OURS = '''
from backtrack_mrt.verifiers_env import EpisodesConfig, EpisodesEnv
from backtrack_mrt.verifiers_env import EpisodesTaskset as Ours

class EpisodesTaskset(Ours):
    """Twenty problems, retried."""
    def __init__(self, config):
        few = {"env": "retry", "protocol": {"max_retries": 1}, "data": {"train_size": 20, "eval_size": 4}}
        few["training"] = {"problems_per_step": 4, "micro_batch_size": 1}
        super().__init__(config.model_copy(update={"settings": few}))

__all__ = ["EpisodesEnv", "EpisodesTaskset"]
'''
UNMAPPED = {
    "tools": ("a setup in a runtime", "async def setup(self, trace, runtime): ..."),
    "box": ("it needs a container", "NEEDS_CONTAINER = True"),
    "judged": (
        "its reward right needs a runtime",
        "@vf.reward\n    async def right(self, runtime) -> float: return 1.0",
    ),
}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules, as if they were installed."""
    modules = {"vf_sums": SUMS, "vf_guess": GUESS, "vf_ours": OURS}
    for name, (_, member) in UNMAPPED.items():
        modules[f"vf_{name}"] = (
            f"import verifiers.v1 as vf\n__all__ = ['Tasks']\nclass Task(vf.Task[vf.TaskData]):\n    {member}\n"
            "class Tasks(vf.Taskset[Task, vf.TasksetConfig]):\n    def load(self):\n"
            "        yield Task(vf.TaskData(prompt='?'))\n"
        )
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def config_of(name: str, *flags: str) -> Config:
    sizes = ["--data.train_size", "8", "--data.eval_size", "8", "--training.problems_per_step", "8"]
    return read_request(["--env", name, *sizes, *flags]).config


def played(config: Config, replies: list[str]) -> Trajectory:
    """A trajectory in which the model says `replies`."""
    problem = load_problem_sets(config.data, 1, config.grading).train[0]
    episode = Episode(config.protocol, problem)
    for reply in replies:
        if episode.spec is not None:
            episode.advance(reply, Completion((1,), (0.0,), Finish.STOP))
    return graded(episode.trajectory(), lambda answer: config.grading.grade(problem, answer))


def test_one_flag_names_protocol_grader_and_problems() -> None:
    config = config_of("verifiers:vf_sums")
    assert (config.env, config.grader, config.data.train) == ("verifiers:vf_sums",) * 2 + (["verifiers:vf_sums"],)
    assert config.run_path.name == "verifiers-vf_sums-mrt-rl-seed0"
    sets = load_problem_sets(config.data, 1, config.grading)
    assert (len(sets.train), len(sets.eval)) == (8, 8)
    assert not {p.id for p in sets.train} & {p.id for p in sets.eval}
    assert sets.train[0].question.startswith("Be brief.\n\nWhat is ")


def test_a_single_turn() -> None:
    config = config_of("verifiers:vf_sums")
    problem = load_problem_sets(config.data, 1, config.grading).train[0]
    right = int(problem.id.rpartition("/")[2]) + 1
    for reply, reward in ((f"\\boxed{{{right}}}", 1.0), ("\\boxed{99}", 0.0), ("", 0.0)):
        trajectory = played(config, [reply, "and more"])
        assert (len(trajectory.turns), trajectory.stop, trajectory.outcome) == (1, StopReason.FINISHED, reward)
    forced = config.grading.standing(problem, ())
    assert config.grading.grade(forced, f"It is \\boxed{{{right}}}").reward == 1.0


def test_several_turns() -> None:
    name = "verifiers:vf_guess"
    environment, config = source(name), config_of(name)
    assert environment.play(0, ()) == Played("Guess a number from 1 to 8.", 0.0)
    assert environment.play(0, ["1"]).said == "higher"
    secret = next(n for n in range(1, 9) if environment.play(0, [str(n)]).said is None)
    assert environment.play(0, ["1", "8", str(secret)]) == Played(None, pytest.approx(1 / 3))
    problem = environment.problem(0)
    episode = Episode(config.protocol, problem)
    for reply in ("1", "8", str(secret)):
        episode.advance(reply, Completion((1,), (0.0,), Finish.STOP))
    trajectory = graded(episode.trajectory(), lambda answer: config.grading.grade(problem, answer))
    assert [turn.spec.fields["said"] for turn in trajectory.turns] == ["", "higher", "lower"]
    assert [turn.reward for turn in trajectory.turns] == [0.0, 0.0, pytest.approx(1 / 3)]
    assert trajectory.outcome == pytest.approx(1 / 3)
    standing = config.grading.standing(problem, trajectory.turns[:1])
    assert config.grading.grade(standing, str(secret)).reward == 0.5  # what V is made of: the next reply ends it


def test_where_their_code_fails_the_conversation_is_over() -> None:
    with pytest.warns(UserWarning, match="ValueError"):
        trajectory = played(config_of("verifiers:vf_guess"), ["1 or 2"])
    assert (trajectory.stop, trajectory.outcome, trajectory.verdict) == (StopReason.FINISHED, 0.0, "unparsable")


def test_it_leaves_the_process_s_random_numbers_alone() -> None:
    import random

    random.seed(5)
    before = random.getstate()
    source("verifiers:vf_guess").play(3, ["4"])
    assert random.getstate() == before


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (reason, _) in UNMAPPED.items()])
def test_what_cannot_be_mapped_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_request(["--env", f"verifiers:vf_{name}"])


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="verifiers cannot load it: ModuleNotFoundError"):
        read_request(["--env", "verifiers:nowhere_to_be_found"])


def test_ours_as_theirs_pays_what_ours_pays() -> None:
    """Exported, and imported again: the same trajectories, the same outcomes."""
    theirs = source("verifiers:vf_ours")
    assert theirs.tasks() == 20
    problem, asked = theirs._tasks[0].data.problem, theirs.play(0, ())  # type: ignore[attr-defined]
    assert problem.question in asked.said
    right, wrong = f"So \\boxed{{{problem.answer}}}.", "So \\boxed{123456}."
    for replies, reward in (([right, wrong], 0.0), ([wrong, right], 1.0), (["no box"], 0.0)):
        assert theirs.play(0, replies) == Played(None, reward)
    assert "Check." in theirs.play(0, [right]).said


def test_a_run_on_it(tmp_path: Path) -> None:
    """Trained for a step on both, from the command line's words to the run directory."""
    from backtrack_mrt.training.train import train

    for name in ("vf_sums", "vf_guess"):
        small = ["--training.steps", "1", "--training.problems_per_step", "2", "--training.group_size", "2"]
        small += ["--training.micro_batch_size", "2", "--protocol.max_replies", "2", "--protocol.token_budget", "24"]
        small += ["--protocol.reply_tokens", "12", "--prover.samples", "2", "--prover.max_answer_tokens", "8"]
        small += ["--output-dir", str(tmp_path / name)]
        train(read_request(["--env", f"verifiers:{name}", "--data.train_size", "4", "--data.eval_size", "2", *small]))
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        assert "progress/phase_reply" in row
