"""One run, start to end: evaluate the base, train, evaluate what was learned, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from backtrack_mrt.algos.base import SelfTraining, Valued
from backtrack_mrt.config import Config, RunRequest
from backtrack_mrt.config.rules import broken_rules
from backtrack_mrt.data.canaries import with_canaries
from backtrack_mrt.data.demonstrations.inline import in_one_message
from backtrack_mrt.data.demonstrations.loading import check_demonstrations, load_demonstrations
from backtrack_mrt.data.loading import ProblemSets, is_generated, load_problem_sets
from backtrack_mrt.data.order import endless, training_order
from backtrack_mrt.errors import Mistakes
from backtrack_mrt.evaluation.calibration import CALIBRATION, at_start
from backtrack_mrt.evaluation.tables import RunResult
from backtrack_mrt.plugins import failures_told
from backtrack_mrt.policy.files import EMBEDDED
from backtrack_mrt.reports.build import rebuild
from backtrack_mrt.reports.model_card import write_cards
from backtrack_mrt.rollouts.assembly import Assembly, assemble, prompts_of
from backtrack_mrt.rollouts.collector import Stopwatch
from backtrack_mrt.rollouts.rehearsal import rehearse_own
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.rollouts.row_lengths import fitting
from backtrack_mrt.runs import environment, interrupts, processes
from backtrack_mrt.runs.alarms import AT_START, Bell, raise_at_start
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.inputs import check_inputs, save_inputs
from backtrack_mrt.runs.seconds import earlier_seconds, keeping
from backtrack_mrt.runs.trackers import Trackers
from backtrack_mrt.training.held_out import HeldOut
from backtrack_mrt.training.inputs import digests
from backtrack_mrt.training.launch import check_launch
from backtrack_mrt.training.rl import PolicyTrainer
from backtrack_mrt.training.self_training import self_train
from backtrack_mrt.training.supervised import CrossEntropyTrainer, Example, weighted_row
from backtrack_mrt.training.trainer_setup import BetweenSteps, Setup
from backtrack_mrt.training.update_trial import check_update
from backtrack_mrt.types import Group, Problem, Scored, TokenLedger


def train(request: RunRequest, base_evaluation: Path | None = None) -> RunResult:
    """Run `request` and leave everything in its run directory. `base_evaluation`: the base's held-out trajectories of
    another run with this seed and evaluation, which are then not sampled again. Raises UserError for bad input, before
    any model loads where that is possible."""
    environment.prepare()
    environment.settle()
    Mistakes(broken_rules(request.config)).tell()  # of a config that was made by hand
    check_launch(request.config)
    run = RunDir.check(request.config, request.existing, accept_changes=request.accept_changes)
    with failures_told(), interrupts.deferred(), run.locked(), processes.told_when_one_is_gone():
        return _train(request, run, base_evaluation)


def _train(request: RunRequest, run: RunDir, base_evaluation: Path | None) -> RunResult:
    config, clock = request.config, Stopwatch(earlier_seconds(run.path) if request.existing == "resume" else {})
    trackers = Trackers(config)
    problems = load_problem_sets(config.data, config.training.problems_per_step, config.grading)
    rehearse_own(config.protocol, prompts_of(config), problems.train[0])
    if _is_shown(config):
        check_demonstrations(config.data.traces, problems.train)
    inputs = digests(config, problems)
    if request.existing == "resume":
        check_inputs(run.path, inputs, request.accept_changes)
    with clock.part("load"):
        parts = assemble(config, training=True)
    with closing(parts.engine), closing(trackers), ExitStack() as in_the_directory:
        if config.algorithm.loss == "rl":
            check_update(parts.model, config.model.name_or_path)
        problems = _that_fit(problems, parts)
        for note in problems.notes:
            processes.tell(note)
        rows = demonstration_rows(parts, problems.train) if _is_shown(config) else []  # before anything is evaluated
        processes.wait()  # all have looked at the run directory before one of them changes it
        RunDir.create(config, request.existing, accept_changes=request.accept_changes)
        in_the_directory.enter_context(keeping(run, clock.seconds))
        save_inputs(run.path, inputs)
        if base_evaluation is not None:
            run.take_over(base_evaluation)
        trackers.follow(run)
        Bell(run)
        processes.wait()
        held_out = HeldOut(parts, problems.eval, run)
        with clock.part("evaluate_base"):
            if not (run.path / AT_START).exists():  # a resumed run has it
                _calibrate(parts, problems.train, run)
            base = held_out.evaluate("base", step=0)
        if base_evaluation is None:  # what was taken over is in the report of the run that it came from
            rebuild(run.path)
        with clock.part("train"):
            training = fit(parts, problems.train, rows, run, request.existing == "resume", held_out.between_steps)
            parts.save_policy(run.model)
            write_cards(run, config, problems, training)
        with clock.part("evaluate_trained"):
            trained = held_out.evaluate("trained", step=run.steps)
    ledgers = {"training": training, "evaluation": held_out.ledger}
    result = RunResult(config.algo_label, config.protocol.max_answers, base, trained, clock.seconds, ledgers)
    run.save("summary.json", result.as_json())
    write_cards(run, config, problems, training, result)
    rebuild(run.path, figures=True)
    processes.wait()
    return result


def _that_fit(problems: ProblemSets, parts: Assembly) -> ProblemSets:
    """The problem sets without the questions that the model's context has no room for."""
    config, length = parts.config, parts.engine.context_length
    that_fit = partial(
        fitting, protocol=config.protocol, dialogue=parts.dialogue, context_length=length, reserve=parts.reserve
    )
    train, passed = that_fit(problems.train, field="data.train", least=config.training.problems_per_step)
    kept, also = that_fit(problems.eval, field="data.eval")
    return ProblemSets(train, kept, [*problems.notes, *passed, *also])


@processes.main_only
def _calibrate(parts: Assembly, problems: Sequence[Problem], run: RunDir) -> None:
    """Say how far the values are off, and what else shows before anything is learnt."""
    bias, config, told = at_start(parts, problems), parts.config, dict[str, str]()
    if bias is not None:
        run.save(CALIBRATION, bias.as_json())
        processes.tell("\n".join(bias.told()))
        if bias.off:
            told["values disagree with samples"] = (
                f"values by {bias.estimator} are {bias.bias:+.3f} off sampled ones. Set prover.estimator to monte_carlo"
            )
    if config.model.name_or_path in EMBEDDED and not all(map(is_generated, problems)):
        told["embedded model on foreign problems"] = (
            "the embedded model knows nothing but its own task: other problems teach it nothing. "
            "Name a real model (model.name_or_path) or its config (--config smollm2_135m.yaml)"
        )
    if config.algorithm.needs_values and not parts.grader.listed and (unlisted := _unlisted(config)):
        told["no likelihood"] = unlisted
    raise_at_start(run, told)


def _unlisted(config: Config) -> str:
    """What was asked for, and cannot be where right answers cannot be listed; empty for nothing."""
    instead = dict[str, str]()
    if config.prover.estimator in ("likelihood", "auto"):
        instead["prover.estimator to monte_carlo"] = f"V is the mean reward of {config.prover.samples} sampled answers"
    if isinstance(config.algorithm, Valued) and config.algorithm.answer_weight:
        instead["algorithm.answer_weight to 0"] = "none is trained along"
    done, remedy = " and ".join(instead.values()), " and ".join(instead)
    reason = f"right answers cannot be listed for the grader {config.grader}"
    return f"{reason}, so {done}. Set {remedy} to say so" if instead else ""


def _is_shown(config: Config) -> bool:
    """Whether the algorithm fits demonstrations."""
    return config.algorithm.loss == "ce" and not isinstance(config.algorithm, SelfTraining)


def fit(
    parts: Assembly,
    problems: Sequence[Problem],
    rows: Sequence[Example],
    run: RunDir,
    resume: bool,
    between_steps: BetweenSteps,
) -> TokenLedger:
    """Train as the algorithm says, on rollouts of the problems or on `rows`, the demonstrations. Returns the tokens
    spent, also before a resume."""
    config = parts.config
    setup = Setup(parts.model, parts.tokenizer, config, run, between_steps, parts.save_policy)
    rolled_out = with_canaries(problems, config.data.canaries, config.data.seed, parts.grader)
    if config.algorithm.loss == "rl":
        order = training_order(rolled_out, config)
        trainer = PolicyTrainer(setup, problems=order, collector=parts.training_collector())
        trainer.fit(setup.checkpoint(resume))
        return trainer.ledger
    if isinstance(config.algorithm, SelfTraining):
        return self_train(parts, setup, endless(rolled_out, config.seed), setup.checkpoint(resume))
    CrossEntropyTrainer(setup, rows=rows).fit(setup.checkpoint(resume))
    return TokenLedger(env=sum(len(row["input_ids"]) for row in rows))


def demonstration_rows(parts: Assembly, problems: Sequence[Problem]) -> list[Example]:
    """Demonstrations of the problems in their order of training, or of the files `data.traces`, as rows to fit."""
    config = parts.config
    protocol = config.protocol.prolonged(config.evaluation.extra_revisions)
    rows = []
    for written in load_demonstrations(config.data.traces, training_order(problems, config), config.seed):
        demonstration = in_one_message(written) if config.env == "inline" else written
        tokenised = tokenise(demonstration, protocol, parts.dialogue)
        scored = Scored(tokenised.trajectory)
        (weights,) = config.algorithm.weigh(Group(demonstration.problem, (scored,)))
        rows.append(weighted_row(replace(scored, weights=weights), tokenised.learn))
    return rows
