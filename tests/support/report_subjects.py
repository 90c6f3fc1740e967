"""Traces made to be reported: what every kind looks like, and text that tries to break out of the page."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.evaluation.metrics.summary import Cuts, summarise
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import write_trajectories
from backtrack_mrt.types import (
    Completion,
    Finish,
    Parsed,
    Problem,
    Scored,
    StopReason,
    TokenLedger,
    Trajectory,
    Turn,
    TurnSpec,
)

HOSTILE = (
    "</script><script>document.title='taken'</script><img src=http://192.0.2.1/x onerror=\"document.title='taken'\">"
    "&lt;b&gt; {{ 7 * 7 }} \u202eevil\u202c \u200b\ud800 \x00 ]]> <!-- "
)


def turn(
    phase: str, text: str, parsed: Parsed | None, reward: float | None = None, violation: str | None = None
) -> Turn:
    """Tokens 5, 6, … , two per turn after an instruction of one."""
    completion = Completion((5, 6), (-0.1, -3.0), Finish.STOP)
    return Turn(TurnSpec(phase, 9), text, parsed, (4,), completion, violation, reward)


def fixed(number: int = 1, question: str = "1 + 1?", answer: str = "2") -> Scored:
    """Two steps, the second wrong; found, taken back, done again."""
    steps = ("## Step 1: one", "## Step 2: three\n\\boxed{3}")
    turns = (
        turn("attempt", "\n\n".join(steps), Parsed(answer="3", steps=steps), reward=0.0),
        turn("detect", "Error in step 2", Parsed(step=2, verdict=False)),
        turn("backtrack", "Backtrack to step 1", Parsed(step=1)),
        turn("revise", f"## Step 2: {answer}", Parsed(answer=answer, steps=(f"## Step 2: {answer}",)), reward=1.0),
    )
    problem = Problem(f"p/{number}", question, "2", "test")
    trajectory = Trajectory(problem, (1, 2), turns, StopReason.TURN_LIMIT, answer, 1.0, "right")
    return Scored(trajectory, np.array([0.5, 0.2, 0.3, 0.4, 0.9]))


def spoiled(number: int = 1) -> Scored:
    """A right answer, then a wrong one."""
    turns = (
        turn("attempt", "\\boxed{2}", Parsed(answer="2"), reward=1.0),
        turn("revise", "\\boxed{4}", Parsed(answer="4"), reward=0.0),
    )
    problem = Problem(f"p/{number}", "1 + 1?", "2", "test")
    trajectory = Trajectory(problem, (1, 2), turns, StopReason.FINISHED, "4", 0.0, "wrong")
    return Scored(trajectory, np.array([0.5, 0.8, 0.1]))


def broken(number: int = 1) -> Scored:
    """A violation, and no values."""
    turns = (turn("attempt", "hm", None, violation="missing_step"),)
    problem = Problem(f"p/{number}", "1 + 1?", "2", "test")
    return Scored(Trajectory(problem, (1, 2), turns, StopReason.VIOLATION, None, 0.0, "unparsable"))


def hostile(number: int = 1) -> Scored:
    """`HOSTILE` wherever a model or a data set can write, and a turn of 100,000 characters."""
    turns = (
        turn(HOSTILE, HOSTILE + "x" * 100_000, Parsed(answer=HOSTILE, steps=(HOSTILE,)), reward=1.0),
        turn("attempt", HOSTILE, None, violation=HOSTILE),
    )
    problem = Problem(f"p/{number}{HOSTILE}", HOSTILE, HOSTILE, HOSTILE)
    trajectory = Trajectory(problem, (1, 2), turns, StopReason.VIOLATION, HOSTILE, 0.0, HOSTILE)
    return Scored(trajectory, np.array([0.5, 0.5, 0.0]))


def run_folder(path: Path, algo: str, trained: bool = True) -> Path:
    """A run directory as a run leaves it, without training: the base evaluated, and the trained policy if `trained`."""
    sizes = ["--data.eval_size", "12", "--protocol.max_revisions", "1"]
    config = read_request(["--algo", algo, "--seed", "0", "--output-dir", str(path), *sizes]).config
    run = RunDir.create(config)
    sides = {"base": [make(n) for n in range(6) for make in (spoiled, broken)]}
    if trained:
        sides["trained"] = [make(n) for n in range(6) for make in (fixed, spoiled)]
    limits = Cuts(answers=2, most_answers=3, turns=4, budget=8, most_tokens=16)
    summary: dict[str, Any] = {"algo": algo, "trained_answers": 2}
    for name, scored in sides.items():
        write_trajectories(run.trajectories / f"evaluation_{name}.jsonl", scored)
        summary[name] = asdict(summarise(scored, limits, protocol=config.protocol))
    for step in (1, 2):
        run.save_trajectories(step, [replace(fixed(step), weights=np.array([0.5, 0.0, -0.25, 1.0]))])
        tokens = {"tokens/sampled": 8, "tokens/step_sampled": 64}
        shares = {"outcome": step / 4, "progress/turn_0": 0.1, "violation/step_order": 0.1 * step, "stop/finished": 1}
        shares |= {"progress/phase_attempt": 0.1, "progress/phase_detect": 0.01 * step, "groups/without_signal": 0.5}
        update = {"loss": -0.1, "grad_norm": 0.2, "learning_rate": 1e-3, "entropy": 0.7, "clip_ratio/region_mean": 0.0}
        run.log(step, tokens | shares | update | {"time/rollout": 2})
    if trained:
        ledgers = {"training": TokenLedger(128, 64, 32).as_json(), "evaluation": TokenLedger(96, 48, 24).as_json()}
        run.save("summary.json", summary | {"tokens": ledgers, "seconds": {"train": 3.0}})
    return path
