"""The forced answers trained along: β·∇V_j at the ends of turns.

    ∇V_j = Σ_y π(y | c_j, "answer now") · ∇ log π(y | c_j, "answer now")     y: the spellings of the gold

It is the policy gradient of a forced answer, without noise: all right answers are summed over instead of one drawn.
Credit alone trains nobody to answer when asked to, so V drifts. The answers' tokens branch off the trajectory's own
forward pass (`packing`); prefixes are not read again.

A turn end moves V by about V·(1 − V): a sure answer, right or wrong, has hardly a gradient. So where all answers would
take more than `SHARE` of the update's tokens, they are drawn with chances in proportion to that, and those drawn weigh
the inverse of their chance: the gradient stays unbiased, and its cost bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.lora import decoder_of
from backtrack_mrt.policy.hf.packed_forward import Branches
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.spelling import Speller, Spelling
from backtrack_mrt.runs import processes
from backtrack_mrt.training.trainer_setup import Setup
from backtrack_mrt.types import FloatArray, Phase, Scored, StopReason, TokenIds, Trajectory

SHARE = 0.1  # of the trajectories' tokens: what answers take at most, on average
_SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
FLOOR = 0.01  # added to V·(1 − V), so that every answer has a chance


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer forced at the end of turn `turn` − 1, where the prefix is c_turn.

    root: tokens of the trajectory, prompt included, that come before. asked: the tokens behind those that ask for it,
    at least one. spellings: of the gold. weight: of V in the objective.
    """

    turn: int
    root: int
    asked: TokenIds
    spellings: tuple[Spelling, ...]
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens that are put through the model for it."""
        begun = {spelling.ids[:n] for spelling in self.spellings for n in range(1, len(spelling.ids))}
        return len(self.asked) + len(begun)


@dataclass(frozen=True, slots=True)
class AnswerMaker:
    """Forces answers from trajectories. context_length: tokens that the model can hold. weight: β. by_token: whether
    the update's mean is over tokens, or over trajectories first."""

    dialogue: Dialogue
    speller: Speller
    context_length: int
    weight: float = 1.0
    by_token: bool = True

    def answers(self, trajectory: Trajectory) -> list[Answer]:
        """One for the end of every turn that this rollout sampled and an answer can follow; none of a canary's gold."""
        if trajectory.problem.canary:
            return []
        ids, spellings = trajectory.token_ids, self.speller.spellings(trajectory.problem)
        longest = max(len(spelling.ids) for spelling in spellings)
        found = []
        for j in range(trajectory.given + 1, len(trajectory.turns) + 1 - (trajectory.stop is StopReason.VIOLATION)):
            forced = self.dialogue.forced(trajectory, j)
            if trajectory.turns[j - 1].spec.phase != Phase.FORCE and len(forced) + longest <= self.context_length:
                # What the question shares with what was said next is there already.
                most = min(len(forced), len(ids)) - 1
                root = next((n for n in range(most) if forced[n] != ids[n]), most)
                found.append(Answer(j, root, forced[root:], spellings))
        return found

    def drawn(self, members: Sequence[Scored], seed: tuple[int, ...]) -> list[list[Answer]]:
        """The answers of each member that are trained, with their weights in the loss of one of several processes."""
        rows = [self.answers(member.trajectory) for member in members]
        room = SHARE * sum(len(m.trajectory.token_ids) - len(m.trajectory.prompt_ids) for m in members)
        tokens = np.array([float(answer.tokens) for row in rows for answer in row])
        known = [m.values for m in members if m.values is not None]  # all: needs_values
        values = np.array([v[answer.turn] for v, row in zip(known, rows, strict=True) for answer in row]).clip(0, 1)
        chances = chances_within(room, tokens, values * (1 - values) + FLOOR)
        lots = np.random.default_rng(seed).random(len(chances))
        factors = iter(np.divide(1.0, chances, out=np.zeros(len(chances)), where=lots < chances))
        weighed = [
            [replace(answer, weight=weight * float(next(factors))) for answer in row]
            for row, weight in zip(rows, self._weights(members), strict=True)
        ]
        return [[answer for answer in row if answer.weight] for row in weighed]

    def _weights(self, members: Sequence[Scored]) -> list[float]:
        """What V weighs at the ends of each member's turns: what a token does that it sampled, times β."""
        sampled = [sum(j >= 0 for j in member.trajectory.turn_index()) for member in members]
        shares = [sum(sampled) if self.by_token else len(members) * tokens for tokens in sampled]
        return [self.weight * processes.count() / max(share, 1) for share in shares]


def chances_within(room: float, tokens: FloatArray, sizes: FloatArray) -> FloatArray:
    """Chances min(1, κ·size) with Σ chance·tokens = `room`; all 1 where there is room for all."""
    chances, certain = np.ones(len(tokens)), np.zeros(len(tokens), dtype=np.bool_)
    if tokens.sum() <= room:
        return chances
    while True:
        left = max(room - tokens[certain].sum(), 0.0)
        chances[~certain] = sizes[~certain] * left / (sizes * tokens)[~certain].sum()
        if not (chances > 1).any():
            return chances
        certain |= chances > 1
        chances[certain] = 1.0


@dataclass(frozen=True, slots=True)
class Branched:
    """A row's answers as branches off its tokens, from the last of its prompt on. read: for every spelling the nodes
    that predict its tokens, the spelling, and the weight of its answer."""

    branches: Branches
    read: tuple[tuple[list[int], Spelling, float], ...]


def branched(prompt: int, completion: int, answers: Sequence[Answer]) -> Branched:
    """The answers of a row of so many tokens. Its last token predicts nothing, and is no part of the packed row; an
    answer behind it begins with it (`AnswerMaker.answers`)."""
    branches, read = Branches(completion), []
    for answer in answers:
        for spelling in answer.spellings:
            nodes = branches.add(answer.root - prompt + 1, answer.asked + spelling.ids[:-1])
            read.append((nodes[len(answer.asked) - 1 :], spelling, answer.weight))
    return Branched(branches, tuple(read))


def total_value(hidden: Tensor, head: Any, rows: Sequence[Branched], first_nodes: Sequence[int]) -> Tensor:
    """Σ weight·V over all answers, a scalar. hidden (T, H): the packed tokens' last hidden states; head: the output
    layer. first_nodes: where the branches of each row begin among the packed tokens."""
    weights = list[float]()
    body, ends = list[tuple[int, int, int]](), list[tuple[int, int, int]]()  # (spelling, row of `places`, token)
    at: dict[int, int] = {}
    for row, first in zip(rows, first_nodes, strict=True):
        for nodes, spelling, weight in row.read:
            found = [at.setdefault(first + node, len(at)) for node in nodes]
            body += [(len(weights), i, token) for i, token in zip(found[:-1], spelling.ids[:-1], strict=True)]
            ends += [(len(weights), found[-1], token) for token in spelling.endings]
            weights.append(weight)
    if not weights:
        return hidden.sum() * 0.0
    logprobs = linear(hidden[list(at)], head.weight, head.bias).float().log_softmax(-1)
    spelled, node, token = torch.tensor(body, device=hidden.device).view(-1, 3).T
    likelihoods = logprobs.new_zeros(len(weights)).index_add(0, spelled, logprobs[node, token])
    spelled, node, token = torch.tensor(ends, device=hidden.device).T
    closed = logprobs.new_zeros(len(weights)).index_add(0, spelled, logprobs[node, token].exp())
    return (likelihoods.exp() * closed * torch.tensor(weights, device=hidden.device)).sum()


def answer_maker(setup: Setup, collector: Collector, packs: bool) -> AnswerMaker:
    """For the trainer's model and rollouts. packs: whether its rows are packed. Raises UserError for a model in
    whose attention nothing can branch off, or whose output is more than its output layer."""
    config = setup.model.config
    scaled = [name for name in _SCALES if getattr(config, name, None) not in (None, 1.0)]
    if scaled or not packs:
        reason = f"the model has {scaled[0]}" if scaled else "nothing can branch off in this model's attention"
        raise UserError("algorithm.answer_weight", setup.config.answer_weight, reason, "Set it to 0.")
    dialogue = collector.dialogue
    speller = Speller(dialogue, collector.grader.spellings)
    by_token = setup.config.training.loss == "dapo"
    return AnswerMaker(dialogue, speller, collector.engine.context_length, setup.config.answer_weight, by_token)


@contextmanager
def last_hidden_states(model: Any) -> Iterator[list[Tensor]]:
    """What the backbone of `model` hands to its output layer in passes within the block, each (1, T, H)."""
    kept = list[Tensor]()
    backbone = decoder_of(model).base_model
    hook = backbone.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state))
    try:
        yield kept
    finally:
        hook.remove()
