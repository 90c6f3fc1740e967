"""Budget forcing: where it is defined, what it asks, and that it is refused elsewhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from conftest import R1, SPECIAL, byte_tokenizer
from support.turn_strategies import PROBLEM, after, attempt

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.rules import broken_rules
from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.open_ended import OpenEnded
from backtrack_mrt.envs.retry import Retry
from backtrack_mrt.envs.single import Single
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ByteChat, Chat, ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.rollout import rollout
from backtrack_mrt.types import Finish, Sampling, StopReason, TokenIds, Trajectory

NO_ERROR, REVISION = "No error", ["Error in step 1", "Backtrack to step 0", attempt(1)]
PROMPTS = load_prompts("open_ended", "instruct")
CHATS: list[Chat] = [ByteChat(), ChatFormat(byte_tokenizer(R1, SPECIAL[R1]), one_message=True)]
REPLIES = ["So 3.\nWait, no.\n</think>\n\nIt is \\boxed{3}.", ", again.\nWait, \\boxed{4}.", "", " \\boxed{2}."]


def forced(protocol: EpisodeProtocol, rounds: int) -> EpisodeProtocol:
    found = protocol.persistent(rounds)
    assert found is not None
    return found


def test_no_error_is_answered_with_another_check() -> None:
    run = Episode(forced(Backtrack(max_revisions=2), 2), Trajectory(PROBLEM, ()))
    after(run, attempt(1), NO_ERROR)
    assert run.spec is not None
    assert run.spec.phase == "detect", "the first wish to stop is not granted"
    after(run, *REVISION, NO_ERROR)
    assert run.spec is not None
    assert run.spec.phase == "detect"
    after(run, NO_ERROR)
    assert run.stop is StopReason.FINISHED
    assert [turn.spec.phase for turn in run.turns] == [
        *("attempt", "detect", "detect", "backtrack", "revise", "detect", "detect"),
    ]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_the_bound_on_turns_is_kept(rounds: int) -> None:
    run = Episode(forced(Backtrack(max_revisions=1), rounds), Trajectory(PROBLEM, ()))
    after(run, attempt(1), *[NO_ERROR] * rounds, *REVISION)
    assert run.stop is StopReason.TURN_LIMIT
    assert len(run.turns) == run.protocol.max_turns == 4 + rounds


def test_retry_is_asked_for_more_attempts() -> None:
    protocol = forced(Retry(max_retries=1), 2)
    run = after(Episode(protocol, Trajectory(PROBLEM, ())), *["\\boxed{1}"] * 4)
    assert [turn.spec.phase for turn in run.turns] == ["attempt", "retry", "retry", "retry"]
    assert (run.stop, protocol.max_turns) == (StopReason.FINISHED, 4)


def streamed(
    chat: Chat, rounds: int, replies: list[str] = REPLIES, **settings: int
) -> tuple[Trajectory, list[TokenIds]]:
    """A stream under forcing, and the prefixes that the model was shown."""
    seen: list[TokenIds] = []

    def reply(prefix: TokenIds) -> TokenIds:
        seen.append(prefix)
        return (*chat.encode(replies[len(seen) - 1]), chat.eos_id)

    protocol = forced(OpenEnded(**{"min_characters": 1, "token_budget": 4096} | settings), rounds)  # type: ignore[arg-type]
    sampling = Sampling(stop_ids=chat.stop_ids)
    (trajectory,) = rollout([PROBLEM], [0], protocol, Dialogue(chat, PROMPTS), ScriptedEngine(reply), sampling)
    return trajectory, seen


@pytest.mark.parametrize("chat", CHATS, ids=["bytes", "r1"])
@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_a_stream_goes_on_with_wait_in_the_same_message(chat: Chat, rounds: int) -> None:
    trajectory, seen = streamed(chat, rounds)
    message = chat.decode(trajectory.token_ids[len(trajectory.prompt_ids) :])
    assert message == "\n\nWait".join(REPLIES[: rounds + 1]), "no message ends before the last"
    assert len(seen) == rounds + 1
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(seen))
    assert trajectory.answer == ["3", "4", "4", "2"][rounds]
    assert trajectory.stop is StopReason.FINISHED
    finishes = [turn.completion.finish for turn in trajectory.turns]
    assert finishes.count(Finish.FORCED) == rounds
    assert finishes[-1] is Finish.STOP
    assert trajectory.token_ids.count(chat.eos_id) - trajectory.prompt_ids.count(chat.eos_id) == 1
    waits = [turn for turn in trajectory.turns if turn.spec.phase == "wait"]
    assert [chat.decode(turn.instruction_ids) for turn in waits] == ["\n\nWait"] * rounds
    assert len(trajectory.turn_index()) == len(trajectory.token_ids) - len(trajectory.prompt_ids)


def test_every_round_is_cut_into_as_many_episodes_as_the_first() -> None:
    cues = "So.\n" + "Wait.\n" * 9
    trajectory, _ = streamed(ByteChat(), 1, [f"{cues}\\boxed{{1}}", cues], max_episodes=4)
    assert [turn.spec.phase for turn in trajectory.turns] == ["think"] * 4 + ["wait"] + ["think"] * 3
    assert trajectory.stop is StopReason.FINISHED


def test_an_answer_is_forced_behind_a_stream_that_was_made_to_go_on() -> None:
    chat = CHATS[1]
    trajectory, _ = streamed(chat, 1)
    ended = next(j for j, t in enumerate(trajectory.turns, 1) if t.completion.finish is Finish.FORCED)
    asked = chat.encode("\n\nThe final answer is \\boxed{")
    assert Dialogue(chat, PROMPTS).forced(trajectory, ended) == trajectory.prefix_ids(ended) + asked


def test_the_budget_holds_all_rounds() -> None:
    trajectory, _ = streamed(ByteChat(), 9, [REPLIES[0], *["\nWait, \\boxed{5}."] * 9], token_budget=80)
    assert (trajectory.stop, trajectory.sampled_tokens) == (StopReason.BUDGET, 80)


def test_the_environment_says_wait_as_well() -> None:
    env = EpisodeEnv(forced(OpenEnded(min_characters=1), 1), [PROBLEM], PROMPTS, grade=lambda _, answer: "right")
    env.reset(seed=0)
    observation, _, terminated, _, info = env.step("\\boxed{3}")
    assert (observation, terminated, info["phase"]) == ("\n\nWait", False, "wait")
    assert ByteChat().decode(env.prefix_ids).endswith("\\boxed{3}\n\nWait")
    assert env.step(", \\boxed{4}")[2]


@pytest.mark.parametrize("env", ["single", "backtrack", "retry", "open-ended", "inline"])
def test_it_is_refused_where_it_is_not_defined(env: str) -> None:
    flags = ["--env", env, "--evaluation.extra_rounds", "2", "4"]
    if env == "single":
        assert Single().persistent(2) is None
        with pytest.raises(UserError, match=r"evaluation\.extra_rounds.*single") as error:
            read_request(flags)
        assert error.value.field.startswith(("evaluation", "--evaluation"))
    else:
        read_request(flags)


def test_a_protocol_that_returns_itself_is_refused() -> None:
    class Same(Single):
        def persistent(self, rounds: int) -> Same:
            return self

    config = read_request(["--env", "single"]).config
    wanted = config.evaluation.model_copy(update={"extra_rounds": [2]})
    (mistake,) = broken_rules(config.model_copy(update={"protocol": Same(), "evaluation": wanted}), training=False)
    assert mistake.field == "evaluation.extra_rounds"
