"""The Gymnasium environment: the contract, what each kind of action and ending gives, and the progress reward."""

from __future__ import annotations

import math
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from support.turn_strategies import attempt

from backtrack_mrt import plugins
from backtrack_mrt.env import EpisodeEnv, ProgressReward, environment_id, make
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.types import Completion, Finish, Parsed, Phase, Problem, StopReason

PROBLEMS = [Problem(str(k), f"What is {k} + 1?", str(k + 1)) for k in range(5)]
RIGHT = "## Step 1: x\n\\boxed{1}"
PROMPTS = load_prompts("backtrack", "terse")


def exact(problem: Problem, answer: str | None) -> str:
    return "right" if answer == problem.answer else "wrong"


def backtrack_env(**settings) -> EpisodeEnv:
    """On problem 0, whose answer is 1."""
    chat, mode = settings.pop("chat", None), settings.pop("render_mode", None)
    env = EpisodeEnv(Backtrack(**settings), PROBLEMS, PROMPTS, grade=exact, chat=chat, render_mode=mode)
    env.reset(seed=0, options={"problem": 0})
    return env


def play(env: gymnasium.Env, *actions: object) -> tuple:
    for action in actions:
        step = env.step(action)
    return step


@pytest.mark.parametrize("name", plugins.names("backtrack_mrt.envs"))
def test_check_env_has_no_complaint(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(environment_id(name), render_mode="ansi").unwrapped)
        check_env(gymnasium.make(environment_id(name), prompts="terse", token_budget=256).unwrapped)


def test_ids_of_protocols():
    assert environment_id("backtrack") == "backtrack_mrt/Backtrack-v0"
    assert environment_id("open_ended") == environment_id("open-ended") == "backtrack_mrt/OpenEnded-v0"


def test_a_right_trajectory_turn_by_turn():
    env = backtrack_env(render_mode="ansi")
    instruction, info = env.reset(options={"problem": 3})
    assert instruction == "What is 3 + 1?\nSolve."
    assert (info["phase"], info["parsed"], info["stop"]) == (Phase.ATTEMPT, None, None)
    instruction, reward, *ended, info = env.step("## Step 1: 3 + 1 = 5\n\\boxed{5}")
    assert (instruction, reward, ended) == ("Check.", 0.0, [False, False])
    assert info["parsed"].answer == info["answer"] == "5"
    assert info["verdict"] is None, "before the end nobody is told whether the answer is right"
    play(env, "3 + 1 is 4\nError in step 1", "Backtrack to step 0", "## Step 1: 3 + 1 = 4\n\\boxed{4}")
    instruction, reward, terminated, truncated, info = env.step("No error")
    assert (instruction, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info == {
        "problem": "3",
        "phase": None,
        "max_new_tokens": 0,
        "parsed": Parsed(verdict=True),
        "violation": None,
        "stop": StopReason.FINISHED,
        "answer": "4",
        "verdict": "right",
    }
    trace = env.render()
    for shown in ("What is 3 + 1?", "Turn 2 · detect", "error in step 1", "back to the beginning", "answer 4 · right"):
        assert shown in trace


def test_observations_do_not_depend_on_the_answer():
    texts = []
    for answer in ("1", "2"):
        env = backtrack_env()
        actions = [f"## Step 1: x\n\\boxed{{{answer}}}", "Error in step 1", "Backtrack to step 0", RIGHT, "No error"]
        texts.append([env.step(action)[0] for action in actions])
    assert texts[0] == texts[1]


def test_endings():
    *_, reward, terminated, truncated, info = play(backtrack_env(max_revisions=0), RIGHT)
    assert (reward, terminated, truncated, info["stop"]) == (1.0, True, False, StopReason.TURN_LIMIT)
    *_, reward, terminated, truncated, info = play(backtrack_env(), RIGHT, "I do not know")
    assert (reward, terminated, truncated, info["violation"]) == (0.0, True, False, "missing_verdict")
    *_, reward, terminated, truncated, info = play(backtrack_env(token_budget=len(RIGHT) + 4), RIGHT, "No error")
    assert (reward, terminated, truncated, info["stop"]) == (1.0, False, True, StopReason.BUDGET)
    *_, reward, terminated, truncated, info = play(backtrack_env(token_budget=8), RIGHT)
    assert (reward, terminated, truncated, info["answer"]) == (0.0, False, True, None)


@pytest.mark.parametrize("action", [None, 7, b"No error", ["No error"], np.array([1.0]), {"text": "x"}])
def test_an_action_that_is_no_text_is_a_violation(action):
    env = gymnasium.make("backtrack_mrt/Backtrack-v0", problems=PROBLEMS, grade=exact)
    env.reset(seed=0)
    *_, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated, info["violation"]) == (0.0, True, False, "not_text")
    assert action not in env.action_space


def test_a_text_that_is_too_long_is_cut_off_where_a_model_would_be(chat):
    text = attempt(1)
    longest = len(chat.encode(text)) + 1  # with the token that ends the turn
    assert play(backtrack_env(chat=chat, attempt_tokens=longest), text)[4]["violation"] is None
    env = backtrack_env(chat=chat, attempt_tokens=longest - 1)
    assert play(env, text)[4]["violation"] == "turn_too_long"
    completion = env.trajectory.turns[0].completion
    assert (len(completion.token_ids), completion.finish) == (longest - 1, Finish.LENGTH)


def test_text_and_sampled_tokens_are_the_same_action(chat: ChatFormat):
    by_text, by_tokens = backtrack_env(chat=chat), backtrack_env(chat=chat)
    for text in (attempt(2), "Error in step 2", "Backtrack to step 1", "## Step 2: y\n\\boxed{1}", "No error"):
        ids = (*chat.encode(text), chat.eos_id)
        completion = Completion(ids, (-0.5,) * len(ids), Finish.STOP)
        assert completion in by_tokens.action_space
        assert by_text.step(text)[:4] == by_tokens.step(completion)[:4]
    assert by_text.trajectory.token_ids == by_tokens.trajectory.token_ids
    assert by_tokens.trajectory.turns[0].completion.logprobs[0] == -0.5
    assert all(math.isnan(p) for p in by_text.trajectory.turns[0].completion.logprobs)


def test_a_trajectory_is_the_dialogue_that_a_rollout_writes(chat: ChatFormat):
    env, dialogue = backtrack_env(chat=chat), Dialogue(chat, PROMPTS)
    assert env.prefix_ids == env.trajectory.prompt_ids
    play(env, attempt(2), "Error in step 2")
    trajectory = env.trajectory
    first, second = trajectory.turns
    assert trajectory.prompt_ids == dialogue.opening(PROBLEMS[0], first.spec)
    assert first.instruction_ids == ()
    assert second.instruction_ids == dialogue.following(second.spec, first.completion)
    asked = Backtrack().next_turn(PROBLEMS[0], trajectory.turns)
    assert env.prefix_ids == trajectory.token_ids + dialogue.following(asked, second.completion)
    begun = chat.encode("\\boxed{")
    for turns in range(3):
        forced = dialogue.forced(trajectory, turns)
        assert forced[-len(begun) :] == begun
        if turns:
            assert forced[: len(trajectory.prefix_ids(turns))] == trajectory.prefix_ids(turns)
    assert dialogue.forced(trajectory, 0) == chat.opening("What is 0 + 1?\nAnswer.") + begun
    assert chat.decode(dialogue.answer("1")) == "1}"


def test_problems_are_drawn_by_the_seed_or_named():
    env = backtrack_env()
    drawn = [env.reset(seed=seed)[1]["problem"] for seed in range(20)]
    assert drawn == [env.reset(seed=seed)[1]["problem"] for seed in range(20)]
    assert len(set(drawn)) > 1
    assert env.reset(options={"problem": np.int64(2)})[1]["problem"] == "2"
    assert env.reset(options={"problem": Problem("own", "?", "!")})[0].startswith("?")


@pytest.mark.parametrize("options", [{"problem": 5}, {"problem": -1}, {"problem": "2"}, {"problems": 2}, ["problem"]])
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        backtrack_env().reset(options=options)


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match="render_mode"):
        backtrack_env(render_mode="human")
    with pytest.raises(UserError, match="problems"):
        EpisodeEnv(Backtrack(), [], PROMPTS)
    with pytest.raises(UserError, match="Did you mean 'backtrack'"):
        make("backtracking")
    with pytest.raises(UserError, match=r"env = .*neither a name nor a path"):
        make(Backtrack)


def test_steps_before_the_beginning_and_after_the_end_are_errors():
    env = EpisodeEnv(Backtrack(), PROBLEMS, PROMPTS, grade=exact)
    with pytest.raises(ResetNeeded):
        env.step("x")
    with pytest.raises(ResetNeeded):
        env.render() if env.render_mode else env.trajectory
    env.reset(seed=0)
    env.step("x")
    with pytest.raises(ResetNeeded):
        env.step("x")


def test_the_default_grader_grades_and_the_environment_closes_it():
    env = make("single", PROBLEMS, prompts="terse")
    env.reset(options={"problem": 1})
    assert env.step("It is \\boxed{2.0}.")[1] == 1.0
    env.reset(options={"problem": 1})
    assert env.step("It is \\boxed{3}.")[4]["verdict"] == "wrong"
    env.close()
    env = make("single", [Problem("pi", "What is pi?", "3.14", rel_tol=0.01)], prompts="terse")
    env.reset()
    assert env.step("It is \\boxed{3.15}.")[1] == 1.0
    env.close()
    env.close()


def test_control_characters_cannot_steer_the_terminal():
    env = backtrack_env(render_mode="ansi")
    play(env, "## Step 1: \x1b[2J\x07\u202e\n\\boxed{1}")
    assert "\x1b" not in env.render()
    assert "⟨U+001B⟩[2J⟨U+0007⟩⟨U+202E⟩" in env.render()


class FakeProver:
    """V = .1 per turn so far, and 0 after a violation."""

    def values(self, trajectories):
        return [
            np.array(
                [0.1 * j for j in range(len(t.turns))] + [0.1 * len(t.turns) * (t.stop is not StopReason.VIOLATION)]
            )
            for t in trajectories
        ]


def test_the_progress_reward_telescopes_to_outcome_and_values():
    env = ProgressReward(backtrack_env(), FakeProver(), alpha=2.0)
    _, info = env.reset(options={"problem": 0})
    assert info["value"] == 0.0
    rewards = [env.step(action)[1] for action in (attempt(1), "Error in step 1", "Backtrack to step 0", RIGHT)]
    assert rewards == pytest.approx([0.2] * 4)
    *_, reward, terminated, _, info = env.step("No error")
    assert terminated
    assert reward == pytest.approx(1.0 + 0.2)
    assert (info["value"], info["progress"]) == pytest.approx((0.5, 0.1))


def test_a_violation_loses_the_value_reached():
    env = ProgressReward(backtrack_env(), FakeProver())
    env.reset(options={"problem": 0})
    env.step(RIGHT)
    *_, reward, _, _, info = env.step("whatever")
    assert reward == pytest.approx(-0.1)
    assert info["value"] == 0.0


def test_wrappers_and_spaces_are_gymnasiums():
    env = ProgressReward(gymnasium.make("backtrack_mrt/Single-v0", problems=PROBLEMS, grade=exact), FakeProver())
    instruction, _ = env.reset(seed=1)
    assert instruction in env.observation_space
    assert env.unwrapped.trajectory.turns == ()
    space = pickle.loads(pickle.dumps(env.action_space))
    assert space == env.action_space != env.observation_space
    space.seed(3)
    first = space.sample()
    space.seed(3)
    assert first == space.sample()
    assert first in space
