"""MRT's credit for other people's trainers: turns, outcomes and values in, an advantage for every token out.

    turns = [bt.credit.turn_index(mask) for mask in masks]  # runs of ones, what the policy sampled, are turns
    advantages = bt.credit.token_advantages(turns, outcomes, values)

The values V_0 … V_E are anybody's; `served_prover` has them from a server with OpenAI's completions, for message lists
made into trajectories by `conversation`. The credits are the algorithms' own (`backtrack_mrt.algos`), by name or path.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.errors import UserError
from backtrack_mrt.grading import Grader, extract_boxed
from backtrack_mrt.rollouts.prover import LikelihoodProver, MetaProver, SampledProver
from backtrack_mrt.rollouts.rollout import token_starts
from backtrack_mrt.types import (
    Completion,
    Finish,
    FloatArray,
    Group,
    Parsed,
    Problem,
    Scored,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
)

ALGORITHMS = "backtrack_mrt.algos"
Message = Mapping[str, Any]  # {"role": "assistant", "content": "…"}
_PHASE = "turn"


def turn_index(mask: ArrayLike) -> NDArray[np.int64]:
    """For every token the turn that sampled it, from 0, or −1 where `mask` is 0 (of the environment): every run of ones
    is a turn. (T,) → (T,)."""
    sampled = np.asarray(mask).astype(bool)
    begins = sampled & ~np.append(False, sampled[:-1])
    return np.where(sampled, np.cumsum(begins) - 1, -1)


def token_advantages(
    turns: Sequence[ArrayLike],
    outcomes: ArrayLike,
    values: Sequence[ArrayLike] | None = None,
    *,
    problems: Sequence[Hashable] | None = None,
    baselines: Sequence[ArrayLike] | None = None,
    algo: str | Algorithm = "mrt-rl",
    **settings: Any,
) -> list[FloatArray]:
    """The advantage of every token, 0 where the environment wrote it: one array (T_i,) per trajectory.

    turns: for every token of a trajectory its turn, −1 for the environment's (see `turn_index`). outcomes: R (N,).
    values: V_0 … V_E of each, (E_i + 1,); not needed by algorithms such as grpo. problems: what each trajectory is of
    (None: all of one); those of one problem are a group. baselines: of a critic of yours (E_i,), for `credit="gae"`.
    algo: a name, a path or an instance; `settings` are its own (``alpha=0.5, credit="return_to_go"``).

    Raises UserError for what does not fit together.
    """
    algorithm = algo if isinstance(algo, Algorithm) else _algorithm(algo, settings)
    rewards = np.asarray(outcomes, dtype=np.float64)
    rows = [np.asarray(row, dtype=np.int64) for row in turns]
    names = ["" for _ in rows] if problems is None else [f"{type(p).__name__} {p}" for p in problems]
    for field, given in (("outcomes", rewards), ("problems", names), ("values", values), ("baselines", baselines)):
        if given is not None and len(given) != len(rows):
            raise UserError(field, len(given), f"there are {len(rows)} trajectories", "Give one for each.")
    for field, given, needed in (
        ("values", values, algorithm.needs_values),
        ("baselines", baselines, algorithm.needs_critic),
    ):
        if needed and given is None:
            remedy = "Give V_0 … V_E of each." if field == "values" else 'Give them, or baseline="value".'
            raise UserError(field, None, "the algorithm needs them", remedy)
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(name, []).append(i)
    if objection := algorithm.objection(max_answers=1, group_size=min(map(len, members.values()), default=2)):
        raise UserError("algo", type(algorithm).__name__, objection, "Give more trajectories of each problem.")
    scored = [
        _scored(i, Problem(name, "", ""), row, float(rewards[i]), values, baselines)
        for i, (name, row) in enumerate(zip(names, rows, strict=True))
    ]
    groups = [Group(Problem(name, "", ""), tuple(scored[i] for i in places)) for name, places in members.items()]
    weights = algorithm.weigh_batch(groups)
    order = [i for places in members.values() for i in places]
    found = dict(zip(order, weights, strict=True))
    return [np.append(found[i], 0.0)[row] for i, row in enumerate(rows)]  # index −1 picks the 0


def conversation(
    messages: Sequence[Message],
    tokenizer: Any,
    problem: Problem,
    *,
    outcome: float = float("nan"),
    cuts: Callable[[str], Sequence[int]] | None = None,
) -> Trajectory:
    """A message list as a trajectory, in the tokens of the tokenizer's chat template: the assistant's messages are the
    turns, all else is the prompt or the environment's. cuts: offsets at which one message falls into several turns
    (``OpenEnded().cuts`` for a thought). Raises UserError for a template that rewrites what it has rendered."""

    def rendered(count: int, reply: bool) -> TokenIds:
        asked = {"add_generation_prompt": reply, "tokenize": True, "return_dict": False}
        return tuple(tokenizer.apply_chat_template(list(messages[:count]), **asked))

    places = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
    if not places or places[0] == 0:
        raise UserError("messages", len(messages), "no question and reply", "Give a user's message, then the reply.")
    prompt, turns = rendered(places[0], True), list[Turn]()
    read = prompt
    for k in places:
        before, after = rendered(k, True), rendered(k + 1, False)
        if before[: len(read)] != read or after[: len(before)] != before:
            reason = "its chat template rewrites earlier messages"
            raise UserError("tokenizer", getattr(tokenizer, "name_or_path", "?"), reason, "Give one reply only.")
        ids = after[len(before) :]
        ended = tokenizer.eos_token_id in ids
        if ended:  # what the template writes behind the end of a message is not sampled
            ids = ids[: ids.index(tokenizer.eos_token_id) + 1]
        turns += _pieces(ids, before[len(read) :], tokenizer, cuts, Finish.STOP if ended else Finish.LENGTH)
        read = before + ids
    answer = next((t.parsed.answer for t in reversed(turns) if t.parsed and t.parsed.answer is not None), None)
    return Trajectory(problem, prompt, tuple(turns), StopReason.FINISHED, answer, outcome)


def served_prover(
    url: str,
    tokenizer: Any,
    *,
    env: str = "open-ended",
    prompts: str = "instruct",
    estimator: Literal["likelihood", "monte_carlo"] = "likelihood",
    samples: int = 8,
    max_answer_tokens: int = 64,
    model: str | None = None,
) -> MetaProver:
    """A meta-prover on a server with OpenAI's completions: `values(trajectories)` are V_0 … V_E of each. tokenizer: the
    served model's. env, prompts: whose words ask for the answer now. Raises UserError."""
    from backtrack_mrt.policy.completions import CompletionsEngine
    from backtrack_mrt.rollouts.assembly import dialogue_with
    from backtrack_mrt.rollouts.prompts import load_prompts

    dialogue = dialogue_with(tokenizer, load_prompts(env, prompts))
    engine = CompletionsEngine(url, tokenizer, model=model, field="url")
    if estimator == "likelihood":
        return LikelihoodProver(dialogue, engine)
    sampled = {"samples": samples, "temperature": 1.0, "max_answer_tokens": max_answer_tokens}
    return SampledProver(dialogue, engine, grader=Grader(), **sampled)  # type: ignore[arg-type]


def _algorithm(name: str, settings: Mapping[str, Any]) -> Algorithm:
    found = plugins.load(ALGORITHMS, name, Algorithm, "algo")  # type: ignore[type-abstract]
    return plugins.configured(found, settings, name)


def _scored(
    i: int,
    problem: Problem,
    row: NDArray[np.int64],
    outcome: float,
    values: Sequence[ArrayLike] | None,
    baselines: Sequence[ArrayLike] | None,
) -> Scored:
    """What an algorithm sees of a trajectory: how long its turns are, how it ended, what it was worth."""
    count = int(row.max(initial=-1)) + 1
    if (np.diff(row[row >= 0]) < 0).any() or row.min(initial=0) < -1:
        raise UserError(f"turns[{i}]", row.tolist(), "turns are counted from 0, in order", "See credit.turn_index.")
    turns = tuple(
        Turn(TurnSpec(_PHASE, int(n)), "", Parsed(), (), Completion((-1,) * int(n), (0.0,) * int(n), Finish.STOP))
        for n in np.bincount(row[row >= 0], minlength=count)
    )
    trajectory = Trajectory(problem, (), turns, StopReason.FINISHED, outcome=outcome)
    found: dict[str, FloatArray] = {}
    for field, given, length in (("values", values, count + 1), ("baselines", baselines, count)):
        if given is not None:
            found[field] = numbers = np.asarray(given[i], dtype=np.float64)
            if numbers.shape != (length,):
                reason = f"{count} turns need {length}"
                raise UserError(f"{field}[{i}]", numbers.tolist(), reason, "V_0 … V_E is one more than the turns.")
    return Scored(trajectory, **found)


def _pieces(
    ids: TokenIds, instruction_ids: TokenIds, tokenizer: Any, cuts: Callable[[str], Sequence[int]] | None, end: Finish
) -> list[Turn]:
    """The turns of one message."""

    def decode(some: TokenIds) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    starts = [0, *(token_starts(ids, cuts(decode(ids)), decode) if cuts else ())]
    turns = []
    for a, b in pairwise([*starts, len(ids)]):
        if a < b:
            completion = Completion(ids[a:b], (float("nan"),) * (b - a), end if b == len(ids) else Finish.CUT)
            text = decode(ids[a:b])
            spec = TurnSpec(_PHASE, b - a)
            turns.append(Turn(spec, text, Parsed(answer=extract_boxed(text)), instruction_ids, completion))
            instruction_ids = ()
    return turns
