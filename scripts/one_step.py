#!/usr/bin/env python
"""One step of reinforcement learning by hand, room by room: python scripts/one_step.py"""

from __future__ import annotations

from dataclasses import replace

import torch

import backtrack_mrt as bt
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.rollouts.collector import groups_of
from backtrack_mrt.rollouts.rollout import grade, rollout, trajectory_seeds
from backtrack_mrt.runs.trace import render_trace


def main() -> None:
    config = bt.load_config("tiny.yaml", algo="mrt-rl", algorithm={"credit": "turn", "answer_weight": 0.0})
    parts = bt.assemble(config)  # policy/: the model with its adapter, and the engine that samples from it

    # data/ asks: four problems, each of them for a group of eight
    problems = [problem for problem in load_problem_sets(config.data).train[:4] for _ in range(8)]

    # rollouts/ plays: the protocol asks, the engine answers, all rows turn by turn; grading/ judges the answers
    seeds = trajectory_seeds(config.seed, step=1, rows=len(problems))
    sampling = bt.Sampling(config.training.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    played = rollout(problems, seeds, config.protocol, parts.dialogue, parts.engine, sampling)
    trajectories = grade(played, parts.grader)
    print(f"{len(trajectories)} trajectories, {sum(t.outcome for t in trajectories):g} of them right. One of these:\n")

    # its meta-prover: how likely the right answer is before the first turn and after each, V_0 … V_E
    scored = [bt.Scored(*pair) for pair in zip(trajectories, parts.prover().values(trajectories), strict=True)]

    # algos/ credits: a group becomes one weight per turn, which goes onto the tokens that the turn sampled
    weights = [row for group in groups_of(scored, 8) for row in config.algorithm.turn_weights(group)]
    weighed = [replace(s, weights=row) for s, row in zip(scored, weights, strict=True)]
    shown = max(weighed, key=lambda s: (s.trajectory.outcome, len(s.trajectory.turns)))
    print(render_trace(shown.trajectory, shown.values), "\n\nThe weights of its turns:", shown.weights)

    # training/ learns: policy gradient, one step of AdamW, as training/rl.py has TRL do it
    optimizer = torch.optim.AdamW([p for p in parts.model.parameters() if p.requires_grad], lr=1e-3)
    before = learn(parts.model, weighed)
    optimizer.step()
    print(f"Loss {before:.4f} → {learn(parts.model, weighed):.4f}")


def learn(model: torch.nn.Module, weighed: list[bt.Scored]) -> float:
    """−Σ weight · log π over the number of sampled tokens; the gradient is left in the model."""
    total, sampled = 0.0, sum(s.trajectory.sampled_tokens for s in weighed)
    for s in weighed:
        ids, start = torch.tensor([s.trajectory.token_ids]), len(s.trajectory.prompt_ids)
        logprobs = model(ids).logits[0, start - 1 : -1].log_softmax(-1).gather(1, ids[0, start:, None])[:, 0]
        loss = -(torch.from_numpy(s.token_weights()) * logprobs).sum() / sampled
        loss.backward()
        total += loss.item()
    return total


if __name__ == "__main__":
    main()
