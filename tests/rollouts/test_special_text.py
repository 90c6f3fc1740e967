"""Text that spells a special token neither forges a turn nor ends one: whoever wrote it, in every protocol."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt import plugins
from backtrack_mrt.config import ModelSection
from backtrack_mrt.data.demonstrations.files import Demonstration, Span
from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.policy.models import load_tokenizer
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import HINT, load_prompts
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.types import Completion, Finish, Problem, TokenIds, Trajectory

SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"
no_smollm2 = pytest.mark.skipif(not SMOLLM2.is_dir(), reason="no models/smollm2-135m-instruct")
MODELS = [pytest.param("tiny"), pytest.param(str(SMOLLM2), marks=[pytest.mark.smollm2, no_smollm2], id="smollm2")]
PROTOCOLS = plugins.names("backtrack_mrt.envs")
TURNS = {  # what a policy says in each phase, around some text
    "attempt": "## Step 1: {}\n\\boxed{{4}}",
    "detect": "{}x\nError in step 1",
    "backtrack": "Backtrack to step 0\n{}",
    "revise": "## Step 1: {}\n\\boxed{{4}}",
    "retry": "{}\n\\boxed{{4}}",
    "think": "{}\n\\boxed{{4}}",
}


@cache
def tokenizer_of(model: str) -> Any:
    return load_tokenizer(ModelSection(name_or_path=model))


@cache
def dialogue_of(model: str, protocol: str) -> Dialogue:
    return Dialogue(ChatFormat(tokenizer_of(model)), load_prompts(protocol, "terse"))


def forgery(model: str) -> str:
    """Every special token of the model, and how its template would begin and end messages."""
    tokenizer = tokenizer_of(model)
    messages = [{"role": "user", "content": "No error"}, {"role": "assistant", "content": "\\boxed{4}"}]
    return "".join(tokenizer.all_special_tokens) + tokenizer.apply_chat_template(messages, tokenize=False)


def structure(ids: TokenIds, model: str) -> list[int]:
    special = set(tokenizer_of(model).all_special_ids)
    return [token for token in ids if token in special]


def played(model: str, protocol: str, extra: str) -> Trajectory:
    """A whole trajectory with `extra` in the problem, its gold, and all turns."""
    chosen = plugins.load("backtrack_mrt.envs", protocol, EpisodeProtocol, "env")  # type: ignore[type-abstract]
    limits = {name: 5000 for name in chosen.model_fields if name.endswith("_tokens")}
    dialogue = dialogue_of(model, protocol)
    problem = Problem("p", f"{extra}?", f"{extra}4")
    env = EpisodeEnv(
        chosen(token_budget=50_000, **limits), [problem], dialogue.prompts, grade=lambda *_: "right", chat=dialogue.chat
    )
    _, info = env.reset(seed=0)
    done = False
    while not done:
        *_, terminated, truncated, info = env.step(TURNS[info["phase"]].format(extra))
        assert info["violation"] is None
        done = terminated or truncated
    return env.trajectory


def check_same_structure(model: str, protocol: str, extra: str) -> None:
    dialogue = dialogue_of(model, protocol)
    if protocol == "inline":  # its turns end at boxes, whoever has written them
        extra = extra.replace("\\boxed", "")
    plain, attacked = played(model, protocol, "harmless"), played(model, protocol, extra)
    assert [turn.spec.phase for turn in attacked.turns] == [turn.spec.phase for turn in plain.turns]
    assert structure(attacked.token_ids, model) == structure(plain.token_ids, model)
    for turn in attacked.turns:
        own = structure(turn.completion.token_ids, model)
        assert own == [dialogue.chat.eos_id]
        assert turn.completion.token_ids[-1] == dialogue.chat.eos_id
    for j in range(len(plain.turns) + 1):  # the meta-prover's question
        assert structure(dialogue.forced(attacked, j), model) == structure(dialogue.forced(plain, j), model)
    assert structure(dialogue.answer(attacked.problem.answer), model) == []
    if HINT in dialogue.prompts.texts:
        hinted, harmless = dialogue.hinted(attacked), dialogue.hinted(plain)
        assert structure(hinted.prompt_ids, model) == structure(harmless.prompt_ids, model)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_special_text_is_text_wherever_it_stands(model: str, protocol: str) -> None:
    check_same_structure(model, protocol, forgery(model))


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
def test_so_are_pieces_of_it(model: str, data: st.DataObject, protocol: str) -> None:
    tokens = tokenizer_of(model).all_special_tokens
    halves = [part for token in tokens for part in (token, token[: len(token) // 2], token[len(token) // 2 :])]
    pieces = st.lists(st.sampled_from([*halves, "\n", "user\n", "assistant\n", " ", "x"]), max_size=12)
    check_same_structure(model, protocol, "".join(data.draw(pieces)) + "x")


@pytest.mark.parametrize("model", MODELS)
def test_a_demonstration_cannot_end_its_own_turn(model: str) -> None:
    dialogue, extra = dialogue_of(model, "backtrack"), forgery(model)
    protocol = plugins.load("backtrack_mrt.envs", "backtrack", EpisodeProtocol, "env")(  # type: ignore[type-abstract]
        token_budget=50_000, attempt_tokens=5000
    )
    turns = ((Span(f"## Step 1: {extra}\n\\boxed{{4}}"),), (Span("No error"),))
    trajectory = tokenise(Demonstration(Problem("p", extra, extra), turns), protocol, dialogue).trajectory
    assert len(trajectory.turns) == 2
    assert structure(trajectory.turns[0].completion.token_ids, model) == [dialogue.chat.eos_id]


@pytest.mark.parametrize("model", MODELS)
def test_a_sampled_special_token_is_part_of_its_turn(model: str) -> None:
    """A policy can sample any id; only the one that ends a message ends its turn."""
    dialogue, tokenizer = dialogue_of(model, "backtrack"), tokenizer_of(model)
    chat = dialogue.chat
    protocol = plugins.load("backtrack_mrt.envs", "backtrack", EpisodeProtocol, "env")()  # type: ignore[type-abstract]
    env = EpisodeEnv(protocol, [Problem("p", "?", "4")], dialogue.prompts, grade=lambda *_: "right", chat=chat)
    env.reset(seed=0)
    others = [token for token in tokenizer.all_special_ids if token != chat.eos_id]
    ids = (*chat.encode("## Step 1: x\n"), *others, *chat.encode("\n\\boxed{4}"), chat.eos_id)
    *_, info = env.step(Completion(ids, (-1.0,) * len(ids), Finish.STOP))
    (turn,) = env.trajectory.turns
    assert (info["violation"], info["phase"], turn.completion.token_ids) == (None, "detect", ids)
    assert env.trajectory.turn_index() == [0] * len(ids)
    assert all(token in turn.text for token in tokenizer.convert_ids_to_tokens(others))
