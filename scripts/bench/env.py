#!/usr/bin/env python
"""Time of the environment and the protocol per turn, without a model: `python scripts/bench/env.py`.

One trajectory of four turns is played again and again from turns written in advance, three ways: the protocol alone
(what a batched rollout pays for parsing), the protocol with the chat's tokens (what it pays in all), and the Gymnasium
environment. Shown is CPU time (waiting does not count): the median over rounds, 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from timing import Times

from backtrack_mrt.env import make
from backtrack_mrt.errors import run_main
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.rollouts.rollout import instruct, take
from backtrack_mrt.types import Completion, Finish, Problem

PROBLEM = Problem("eggs", "A farmer has 3 hens that lay 4 eggs each. He sells 5 eggs. How many are left?", "7")
WORK = "He has 3 hens and each of them lays 4 eggs, so that he has to add up or to multiply these numbers."
TURNS = (
    f"## Step 1: {WORK}\n## Step 2: 3 + 4 = 7 eggs.\n## Step 3: 7 - 5 = 2.\n\n\\boxed{{2}}",
    "Step 2 adds the hens to the eggs.\nError in step 2",
    "Backtrack to step 1",
    "## Step 2: 3 * 4 = 12 eggs.\n## Step 3: 12 - 5 = 7.\n\n\\boxed{7}",
)
ENV = make("backtrack", [PROBLEM], grade=lambda problem, answer: "right", max_revisions=1)
PROTOCOL, DIALOGUE = ENV.protocol, ENV.dialogue
COMPLETIONS = tuple(
    Completion(ids, (0.0,) * len(ids), Finish.STOP)
    for ids in ((*DIALOGUE.chat.encode(text), DIALOGUE.chat.eos_id) for text in TURNS)
)


def play_protocol() -> None:
    episode = Episode(PROTOCOL, PROBLEM)
    for text, completion in zip(TURNS, COMPLETIONS, strict=True):
        episode.advance(text, completion)
    episode.trajectory()


def play_dialogue() -> None:
    episode = Episode(PROTOCOL, PROBLEM)
    for completion in COMPLETIONS:
        take(episode, DIALOGUE, [completion], instruct(episode, DIALOGUE))
    episode.trajectory()


def play_env() -> None:
    ENV.reset(seed=None)
    for completion in COMPLETIONS:
        ENV.step(completion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds timed (default: 30)")
    parser.add_argument("--repeats", type=int, default=100, help="trajectories per round (default: 100)")
    arguments = parser.parse_args()

    def repeat(play: Callable[[], None]) -> None:
        for _ in range(arguments.repeats):
            play()

    plays = {"protocol": play_protocol, "protocol and tokens": play_dialogue, "environment": play_env}
    times = Times.of_ways({name: partial(repeat, play) for name, play in plays.items()}, arguments.rounds)
    for name in plays:
        per_turn = np.array(times.seconds[name]) * 1e6 / (arguments.repeats * len(TURNS))
        low, median, high = np.percentile(per_turn, [10, 50, 90])
        print(f"{name:<20}{median:6.1f} µs a turn [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    run_main(main)
