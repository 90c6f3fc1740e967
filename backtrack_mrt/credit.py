"""MRT's credit for other people's trainers: turns, outcomes and values in, an advantage for every token out.

    turns = [bt.credit.turn_index(mask) for mask in masks]  # runs of ones, what the policy sampled, are turns
    advantages = bt.credit.token_advantages(turns, outcomes, values)

The values V_0 … V_E are anybody's; `served_prover` has them from a server with OpenAI's completions, for message lists
made into trajectories by `conversation`. The credits are the algorithms' own (`backtrack_mrt.algos`), by name or path.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.grading import extract_boxed
from backtrack_mrt.hooks import of_its_kind
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


def algorithm(algo: str | Algorithm, settings: Mapping[str, Any]) -> Algorithm:
    """An algorithm by name, path or as an instance, with its own settings. Raises UserError."""
    if isinstance(algo, Algorithm):
        if settings:
            raise UserError("settings", dict(settings), "the algorithm is an instance already", "Give its name.")
        return algo
    return plugins.configured(algorithm_named(algo), settings, algo, Algorithm)


def algorithm_named(name: str) -> type[Algorithm]:
    """The class of an algorithm, by name or path. Raises UserError."""
    return plugins.load(ALGORITHMS, name, Algorithm, "algo")  # type: ignore[type-abstract]


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
    chosen = algorithm(algo, settings)
    rewards = np.asarray(outcomes, dtype=np.float64)
    rows = [np.asarray(row, dtype=np.int64) for row in turns]
    names = ["" for _ in rows] if problems is None else [f"{type(p).__name__} {p}" for p in problems]
    for field, given in (("outcomes", rewards), ("problems", names), ("values", values), ("baselines", baselines)):
        if given is not None and len(given) != len(rows):
            raise UserError(field, len(given), f"there are {len(rows)} trajectories", "Give one for each.")
    for field, given, needed in (
        ("values", values, chosen.needs_values),
        ("baselines", baselines, chosen.needs_critic),
    ):
        if needed and given is None:
            remedy = "Give V_0 … V_E of each." if field == "values" else 'Give them, or baseline="value".'
            raise UserError(field, None, "the algorithm needs them", remedy)
    if strange := [float(number) for number in rewards.flat if not np.isfinite(number)]:
        raise UserError("outcomes", strange[0], "not a finite number", "Leave that trajectory out.")
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(name, []).append(i)
    objection = chosen.objection(max_answers=1, group_size=min(map(len, members.values()), default=2))
    if objection := of_its_kind("algo", chosen, "objection", objection):
        raise UserError("algo", type(chosen).__name__, objection, "Give more trajectories of each problem.")
    scored = [
        _scored(i, Problem(name, "", ""), row, float(rewards[i]), values, baselines)
        for i, (name, row) in enumerate(zip(names, rows, strict=True))
    ]
    groups = [Group(Problem(name, "", ""), tuple(scored[i] for i in places)) for name, places in members.items()]
    weights = chosen.weigh_batch(groups)
    order = [i for places in members.values() for i in places]
    found = dict(zip(order, weights, strict=True))
    return [np.append(found[i], 0.0)[row] for i, row in enumerate(rows)]  # index −1 picks the 0


def cut_turns(
    turns: ArrayLike, token_ids: Sequence[int], tokenizer: Any, cuts: Callable[[str], Sequence[int]]
) -> NDArray[np.int64]:
    """The turns of `turn_index` cut further, at offsets into the text of each: ``OpenEnded().cuts`` for a thought."""
    index = np.asarray(turns, dtype=np.int64)
    begins = np.zeros(len(index), dtype=bool)
    decode = _decoder(tokenizer)
    for j in range(int(index.max(initial=-1)) + 1):
        places = np.flatnonzero(index == j)
        ids = tuple(token_ids[int(place)] for place in places)
        text = decode(ids)
        offsets: object = cuts(text)
        inside = [*offsets] if isinstance(offsets, Iterable) else None
        if inside is None or any(
            type(at) is not int or not a < at < len(text) for a, at in zip([0, *inside], inside, strict=False)
        ):
            reason = f"these are no increasing offsets into a text of {len(text)} characters"
            raise UserError("cuts", offsets, reason, "Return where each further turn begins.")
        begins[places[[0, *token_starts(ids, inside, decode)]]] = True
    return np.where(index >= 0, np.cumsum(begins) - 1, -1)


def trajectory(
    problem: Problem,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    turns: ArrayLike,
    tokenizer: Any,
    outcome: float = float("nan"),
) -> Trajectory:
    """An episode in tokens as a trajectory: `token_ids` follow the prompt, `turns` says whose each is. What the
    environment wrote after the last turn is left out."""
    decode, index, ids_T = _decoder(tokenizer), np.asarray(turns, dtype=np.int64), tuple(map(int, token_ids))
    found: list[Turn] = []
    waiting: TokenIds = ()
    read = 0
    for j, run in groupby(index.tolist()):
        begins, read = read, read + len(list(run))
        ids = ids_T[begins:read]
        if j < 0:
            waiting = ids
            continue
        goes_on = read < len(index) and index[read] >= 0
        ended = ids[-1] == tokenizer.eos_token_id
        finish = Finish.STOP if ended else Finish.CUT if goes_on else Finish.LENGTH
        completion, text = Completion(ids, (float("nan"),) * len(ids), finish), decode(ids)
        parsed = Parsed(answer=extract_boxed(text))
        found.append(Turn(TurnSpec(_PHASE, len(ids)), text, parsed, waiting, completion))
        waiting = ()
    answer = next((t.answer for t in reversed(found) if t.answer is not None), None)
    return Trajectory(problem, tuple(prompt_ids), tuple(found), StopReason.FINISHED, answer, outcome)


def conversation(
    messages: Sequence[Message],
    tokenizer: Any,
    problem: Problem,
    *,
    outcome: float = float("nan"),
    cuts: Callable[[str], Sequence[int]] | None = None,
) -> Trajectory:
    """A message list as a trajectory, in the tokens of the tokenizer's chat template: the assistant's messages are the
    turns, cut further at `cuts` (see `cut_turns`); all else is the prompt or the environment's. Raises UserError for a
    template that rewrites what it has rendered."""

    def rendered(count: int, reply: bool) -> TokenIds:
        asked = {"add_generation_prompt": reply, "tokenize": True, "return_dict": False}
        return tuple(tokenizer.apply_chat_template(list(messages[:count]), **asked))

    places = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
    if not places or places[0] == 0:
        raise UserError("messages", len(messages), "no question and reply", "Give a user's message, then the reply.")
    read = prompt = rendered(places[0], True)
    mask: list[int] = []
    for k in places:
        before, after = rendered(k, True), rendered(k + 1, False)
        if before[: len(read)] != read or after[: len(before)] != before:
            reason = "its chat template rewrites earlier messages"
            raise UserError("tokenizer", getattr(tokenizer, "name_or_path", "?"), reason, "Give one reply only.")
        ids = after[len(before) :]
        if tokenizer.eos_token_id in ids:  # what the template writes behind the end of a message is not sampled
            ids = ids[: ids.index(tokenizer.eos_token_id) + 1]
        mask += [0] * (len(before) - len(read)) + [1] * len(ids)
        read = before + ids
    turns = turn_index(mask)
    if cuts is not None:
        turns = cut_turns(turns, read[len(prompt) :], tokenizer, cuts)
    return trajectory(problem, prompt, read[len(prompt) :], turns, tokenizer, outcome)


def served_prover(
    url: str,
    tokenizer: Any,
    *,
    env: str = "open-ended",
    prompts: str = "instruct",
    estimator: Literal["likelihood", "monte_carlo", "greedy"] = "likelihood",
    samples: int = 8,
    max_answer_tokens: int = 64,
    model: str | None = None,
    grader: Grader = MATH,
) -> MetaProver:
    """A meta-prover on a server with OpenAI's completions: `values(trajectories)` are V_0 … V_E of each. tokenizer: the
    served model's. env, prompts: whose words ask for the answer now. model: which one (None: the first that it lists).
    Only the likelihood needs a server with logprobs, and a grader whose right answers can be listed. Raises UserError.
    """
    from backtrack_mrt.policy.completions import CompletionsEngine
    from backtrack_mrt.rollouts.assembly import dialogue_with
    from backtrack_mrt.rollouts.prompts import load_prompts

    if estimator == "likelihood" and not grader.listed:
        reason = f"the grader {type(grader).__name__} cannot list its right answers"
        raise UserError("estimator", estimator, reason, "Take monte_carlo or greedy.")
    dialogue = dialogue_with(tokenizer, load_prompts(env, prompts).marked(grader.marker))
    engine = CompletionsEngine(url, tokenizer, model=model, field="url", scoring=estimator == "likelihood")
    if estimator == "likelihood":
        return LikelihoodProver(dialogue, engine, surfaces=grader.spellings)
    greedy = estimator == "greedy"
    return SampledProver(
        dialogue,
        engine,
        grader=grader,
        samples=1 if greedy else samples,
        temperature=0.0 if greedy else 1.0,
        max_answer_tokens=max_answer_tokens,
    )


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
    episode = Trajectory(problem, (), turns, StopReason.FINISHED, outcome=outcome)
    found: dict[str, FloatArray] = {}
    for field, given, length in (("values", values, count + 1), ("baselines", baselines, count)):
        if given is not None:
            found[field] = numbers = np.asarray(given[i], dtype=np.float64)
            if numbers.shape != (length,):
                reason = f"{count} turns need {length}"
                raise UserError(f"{field}[{i}]", numbers.tolist(), reason, "V_0 … V_E is one more than the turns.")
            if not np.isfinite(numbers).all():
                raise UserError(f"{field}[{i}]", numbers.tolist(), "not finite numbers", "Mend what estimates them.")
    return Scored(episode, **found)


def _decoder(tokenizer: Any) -> Callable[[TokenIds], str]:
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
