"""Rollouts of every protocol: on the embedded model and on scripted replies; branches, windows, values, rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.turn_strategies import PROBLEM, attempt

from backtrack_mrt import plugins
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import generate
from backtrack_mrt.env import EpisodeEnv, Judged, ProgressReward
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.retry import Retry
from backtrack_mrt.graders.math import Math
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import graded
from backtrack_mrt.rollouts.prompts import QUESTION, Prompts, load_prompts
from backtrack_mrt.rollouts.prover import SampledProver
from backtrack_mrt.rollouts.rollout import force_answers, rollout
from backtrack_mrt.types import Finish, Parsed, Problem, Sampling, StopReason, TokenIds, Trajectory, Turn, TurnSpec

PROBLEMS, SEEDS = generate("validation", 4, seed=5), [11, 12, 13, 14]
PROTOCOLS = plugins.names("backtrack_mrt.envs")
CHAT = ByteChat()
BYTES = Sampling(stop_ids=CHAT.stop_ids)


@cache
def parts(env: str) -> Assembly:
    """The embedded model under a protocol, with the settings of the default config."""
    config = read_request(["--env", env]).config
    if env == "backtrack":
        return assemble(config)
    shared = parts("backtrack")
    return replace(shared, config=config, dialogue=Dialogue(shared.dialogue.chat, load_prompts(env, "terse")))


@cache
def trajectories(env: str) -> Sequence[Trajectory]:
    """Rollouts of the embedded model."""
    return embedded(env, PROBLEMS)


def embedded(env: str, starts: Sequence[Problem | Trajectory], temperature: float = 1.0) -> list[Trajectory]:
    run = parts(env)
    run.engine.sync()
    sampling = Sampling(temperature, stop_ids=run.dialogue.chat.stop_ids)
    return rollout(starts, SEEDS, run.config.protocol, run.dialogue, run.engine, sampling)


def exact(problem: Problem, answer: str | None) -> str:
    return "right" if answer == problem.answer else "wrong"


class Anything(EpisodeProtocol):
    """Four turns of up to eight tokens, whatever they say; a word more in each instruction."""

    @property
    def max_turns(self) -> int:
        return 4

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        return StopReason.FINISHED if len(turns) == 4 else TurnSpec("go", 8, {"turn": str(len(turns))})

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        return Parsed(answer=text)


ANYTHING = Dialogue(CHAT, Prompts({QUESTION: "<<question>> <<instruction>>", "go": "go<<turn>>"}))


def anything(starts: Sequence[Problem | Trajectory], seeds: Sequence[int], window: int | None = None):
    """Rollouts of a model that says bytes at random and ends every message (it has few ids)."""
    engine = RecordingEngine()
    return rollout(starts, seeds, Anything(), ANYTHING, engine, BYTES, window), engine


class RecordingEngine(ScriptedEngine):
    """Samples letters, four of them in a turn, then the end; remembers what it was asked to continue."""

    def __init__(self) -> None:
        super().__init__(vocabulary=257)
        self.prefixes: list[TokenIds] = []

    def generate(self, requests, sampling):
        self.prefixes += [request.prefix_ids for request in requests]
        drawn = super().generate(requests, sampling)
        return [type(c)((*c.token_ids[:4], CHAT.eos_id), (*c.logprobs[:4], -0.5), Finish.STOP) for c in drawn]


@pytest.mark.parametrize("env", PROTOCOLS)
def test_the_embedded_model_keeps_to_every_protocol(env):
    turns = [turn for trajectory in trajectories(env) for turn in trajectory.turns]
    assert sum(turn.parsed is not None for turn in turns) >= 0.9 * len(turns)
    assert {t.stop for t in trajectories(env)} <= {StopReason.FINISHED, StopReason.TURN_LIMIT, StopReason.VIOLATION}
    assert all(len(t.turns) <= parts(env).config.protocol.max_turns for t in trajectories(env))
    several = env not in ("single", "inline")  # it was never taught to backtrack within a message
    assert several == any(len(t.turns) >= 3 for t in trajectories(env))


@pytest.mark.parametrize("env", PROTOCOLS)
def test_progress_rewards_are_the_progress_of_the_batched_values(env):
    run, prover = parts(env), parts(env).prover()
    values = prover.values(trajectories(env))
    assert any(v.max() - v.min() > 0.01 for v in values), "a prover that says the same everywhere shows nothing"
    protocol, dialogue = run.config.protocol, run.dialogue
    for trajectory, expected in zip(trajectories(env), values, strict=True):
        grader = Judged(function=exact)
        bare = EpisodeEnv(protocol, PROBLEMS, dialogue.prompts, grade=exact, chat=dialogue.chat)
        wrapped = ProgressReward(bare, prover, alpha=1.0)
        wrapped.reset(options={"problem": trajectory.problem})
        assert bare.trajectory.prompt_ids == trajectory.prompt_ids
        rewards = [wrapped.step(turn.completion)[1] for turn in trajectory.turns]
        assert bare.trajectory.token_ids == trajectory.token_ids
        assert bare.trajectory.stop == trajectory.stop
        outcome = graded(trajectory, lambda answer, p=trajectory.problem, g=grader: g.grade(p, answer)).outcome
        progress = np.diff(expected)
        progress[-1] += outcome
        np.testing.assert_allclose(rewards, progress, atol=1e-4)


@pytest.mark.parametrize("env", PROTOCOLS)
def test_values_are_the_likelihood_of_the_gold_answer_after_the_forced_prefix(env):
    run, trajectory = parts(env), next(t for t in trajectories(env) if t.stop is not StopReason.VIOLATION)
    (values,) = run.prover().values([trajectory])
    assert len(values) == len(trajectory.turns) + 1
    gold = run.dialogue.chat.encode(trajectory.problem.answer + "}")
    for turns, value in enumerate(values):
        (logprobs,) = run.engine.score([run.dialogue.forced(trajectory, turns)], [gold])
        assert value == pytest.approx(np.exp(logprobs.sum()), abs=1e-4)


@pytest.mark.parametrize("env", PROTOCOLS)
def test_a_branch_of_the_embedded_model_goes_on_as_before(env):
    """One free stream is one draw, so its branch draws anew unless it is greedy."""
    temperature = 0.0 if env == "open-ended" else 1.0
    whole = embedded(env, PROBLEMS, temperature)
    given = [min(2, len(t.turns) - 1) for t in whole]
    again = embedded(env, [t.branch(turns) for t, turns in zip(whole, given, strict=True)], temperature)
    for before, after, turns in zip(whole, again, given, strict=True):
        assert after.token_ids == before.token_ids
        assert (after.given, after.stop, after.answer) == (turns, before.stop, before.answer)
        assert [turn.parsed for turn in after.turns] == [turn.parsed for turn in before.turns]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_branch_with_the_same_seed_draws_the_same_tokens(turns):
    problems, seeds = [PROBLEM] * 5, [3, 1, 4, 15, 9]
    whole, _ = anything(problems, seeds)
    again, engine = anything([t.branch(turns) for t in whole], seeds)
    assert [t.token_ids for t in again] == [t.token_ids for t in whole]
    assert [t.turn_index()[-5:] for t in again] == [[3] * 5] * 5
    assert engine.prefixes[0] == whole[0].prefix_ids(turns) + whole[0].turns[turns].instruction_ids
    assert len({t.token_ids for t in whole}) == 5
    reseeded, _ = anything([t.branch(turns) for t in whole], [seed + 1 for seed in seeds])
    assert all(a.token_ids != b.token_ids for a, b in zip(reseeded, whole, strict=True))
    assert all(a.prefix_ids(turns) == b.prefix_ids(turns) for a, b in zip(reseeded, whole, strict=True))


@pytest.mark.parametrize("window", [0, 1, 2, 9])
def test_a_window_shows_the_prompt_and_the_last_turns_only(window):
    (trajectory,), engine = anything([PROBLEM], [7], window)
    for j, prefix in enumerate(engine.prefixes):
        shown = trajectory.turns[max(0, j - window) : j]
        parts_shown = [(*turn.instruction_ids, *turn.completion.token_ids) for turn in shown]
        assert prefix == sum(parts_shown, trajectory.prompt_ids) + trajectory.turns[j].instruction_ids
    assert len(trajectory.token_ids) > len(engine.prefixes[-1]) or window == 9, "the trajectory keeps everything"


def scripted(protocol: EpisodeProtocol, *replies: str) -> Trajectory:
    """The trajectory of a model that says these turns."""
    name = type(protocol).__name__.lower()
    engine = ScriptedEngine([(*CHAT.encode(reply), CHAT.eos_id) for reply in replies])
    dialogue = Dialogue(CHAT, load_prompts(name, "instruct"))
    return rollout([PROBLEM], [0], protocol, dialogue, engine, BYTES)[0]


def test_retries_are_asked_for_in_a_message_of_their_own():
    trajectory = scripted(Retry(max_retries=2), "\\boxed{3}", "\\boxed{5}", "so \\boxed{2}")
    assert (trajectory.answer, trajectory.stop) == ("2", StopReason.FINISHED)
    asked = CHAT.opening(load_prompts("retry", "instruct").texts["retry"])
    assert [turn.instruction_ids for turn in trajectory.turns] == [(), asked, asked]
    with_two = scripted(Retry(max_retries=2).with_answers(2), "\\boxed{3}", "\\boxed{5}")
    assert with_two.token_ids == trajectory.prefix_ids(2)


def test_budget_forcing_in_a_rollout_asks_for_another_check():
    trajectory = scripted(Backtrack().persistent(1), attempt(1), "No error", "No error")
    first, second = (turn.instruction_ids for turn in trajectory.turns[1:])
    assert first == second == CHAT.opening(load_prompts("backtrack", "instruct").texts["detect"])
    assert (trajectory.stop, trajectory.answer) == (StopReason.FINISHED, "4")


@pytest.mark.parametrize("env", ["retry", "open-ended"])
def test_sampled_values_and_forced_answers_take_the_same_prefixes(env):
    run, trajectory = parts(env), trajectories(env)[0]
    sampling = Sampling(0.0, stop_ids=run.dialogue.chat.stop_ids)
    ended = force_answers([trajectory.branch(1)], [0], run.dialogue, run.engine, sampling, 40)[0]
    assert ended.answer is not None
    with Math(workers=1) as grader:
        prover = SampledProver(
            run.dialogue, run.engine, grader=grader, samples=1, temperature=0.0, max_answer_tokens=40
        )
        gold = Problem(PROBLEMS[0].id, PROBLEMS[0].question, ended.answer)
        asked = run.dialogue.forced(trajectory, 1)
        assert prover.prefix_values([(asked, gold)]) == [1.0]
        assert prover.prefix_values([(asked, Problem("other", "", "no such answer"))]) == [0.0]


def test_sampled_values_allow_the_tolerance_of_the_problem():
    dialogue = Dialogue(CHAT, load_prompts("backtrack", "instruct"))
    engine = ScriptedEngine(lambda prefix: (*CHAT.encode("3.1}"), CHAT.eos_id))
    exact = Problem("pi", "How much?", "3.09")
    with Math(workers=1) as grader:
        prover = SampledProver(dialogue, engine, grader=grader, samples=2, temperature=1.0, max_answer_tokens=8)
        prefixes = [(CHAT.encode("?"), problem) for problem in (exact, replace(exact, rel_tol=0.01))]
        assert prover.prefix_values(prefixes).tolist() == [0.0, 1.0]
