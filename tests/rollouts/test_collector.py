"""How trajectories come about: branches, forced answers, best-of-n, hints; and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any
from unittest.mock import ANY

import pytest

from backtrack_mrt.algos.collecting import BestOfN, Collection, Play, Rationalized, TerminateOrContinue
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import generate
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.collector import Collected, groups_by_problem, groups_of
from backtrack_mrt.rollouts.rollout import force_answers, rollout, trajectory_seeds
from backtrack_mrt.rollouts.row_lengths import longest_row
from backtrack_mrt.types import Completion, Phase, Problem, Request, Sampling, Scored, StopReason, Trajectory, TurnSpec

PROBLEMS = generate("validation", 3, seed=5)
HARD = generate("validation", 8, seed=6, min_blocks=5, max_blocks=6)


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return assemble(read_request([]).config)


@pytest.fixture
def sampling(parts: Assembly) -> Sampling:
    parts.engine.sync()
    return Sampling(1.0, stop_ids=parts.dialogue.chat.stop_ids)


def collect(parts: Assembly, collection: Collection, group: int) -> Collected:
    collector = replace(parts.training_collector(), collection=collection, group_size=group, max_rows=2 * group)
    rows = [problem for problem in PROBLEMS for _ in range(group)]
    return collector.collect(rows, trajectory_seeds(0, 1, len(rows)), 1.0)


def test_a_branch_goes_on_as_the_uninterrupted_trajectory_did(parts: Assembly, sampling: Sampling) -> None:
    seeds = [11, 12, 13]
    whole = rollout(PROBLEMS, seeds, parts.config.protocol, parts.dialogue, parts.engine, sampling)
    assert max(len(t.turns) for t in whole) > 3
    starts = [t.branch(min(2, len(t.turns) - 1)) for t in whole]
    again = rollout(starts, seeds, parts.config.protocol, parts.dialogue, parts.engine, sampling)
    for before, after in zip(whole, again, strict=True):
        assert after.token_ids == before.token_ids
        assert after.given == min(2, len(before.turns) - 1)
        given = len(after.prefix_ids(after.given)) - len(after.prompt_ids)
        assert set(after.turn_index()[:given]) == {-1}
        assert after.turn_index()[given:] == before.turn_index()[given:]


def test_terminate_or_continue_groups_share_a_prefix(parts: Assembly) -> None:
    scored = collect(parts, TerminateOrContinue(), group=4).scored
    lengths = set()
    for group in groups_of(scored, 4):
        trajectories = [m.trajectory for m in group.members]
        given = trajectories[-1].given
        lengths.add(given)
        prefix = trajectories[-1].prefix_ids(given)
        for now, t in zip((True, True, False, False), trajectories, strict=True):
            assert t.given == given
            assert (t.turns[-1].spec.phase == Phase.FORCE) == now
            assert len(t.turns) > given
            if given:
                assert t.token_ids[: len(prefix)] == prefix
            if now:
                assert len(t.turns) == given + 1
                assert t.stop is StopReason.FINISHED
        assert group.members[0].values is not None
    assert len(lengths) > 1, "prefixes of one length only: the draw does nothing"


@pytest.mark.parametrize("cut", [1, 2, 4, 5, 6, 11])
def test_processes_share_the_groups_of_a_prefix(parts: Assembly, cut: int) -> None:
    """Cut anywhere, also within a group: the trajectories of one process, and its tokens."""
    rows = [problem for problem in PROBLEMS for _ in range(4)]
    collector = replace(parts.training_collector(), collection=TerminateOrContinue(), group_size=4)
    seeds = trajectory_seeds(0, 1, len(rows))
    whole = collector.collect(rows, seeds, 1.0)
    first, others = collector.collect(rows[:cut], seeds[:cut], 1.0), cut % 4
    second = collector.collect(rows[cut - others :], seeds[cut - others :], 1.0, others=others)
    found = [scored.trajectory.token_ids for scored in first.scored + second.scored]
    assert found == [scored.trajectory.token_ids for scored in whole.scored]
    assert first.ledger.sampled + second.ledger.sampled == whole.ledger.sampled
    assert first.ledger.env + second.ledger.env == whole.ledger.env


def test_a_forced_answer_ends_the_prefix_that_the_meta_prover_asks(parts: Assembly, sampling: Sampling) -> None:
    (whole,) = rollout(PROBLEMS[:1], [3], parts.config.protocol, parts.dialogue, parts.engine, sampling)
    for start in (PROBLEMS[0], whole.branch(1)):
        (forced,) = force_answers([start], [5], parts.dialogue, parts.engine, sampling, 16)
        turn = forced.turns[-1]
        asked = parts.dialogue.forced(whole, 0 if start is PROBLEMS[0] else 1)
        assert forced.token_ids == asked + turn.completion.token_ids
        assert turn.parsed is not None
        assert forced.answer == turn.parsed.answer


def test_best_of_n_gives_every_answer_as_a_member(parts: Assembly) -> None:
    best, plain = (collect(parts, BestOfN(n), group=2) for n in (3, 1))
    scored, own = best.scored, plain.scored
    assert best.ledger.sampled > plain.ledger.sampled
    assert len(scored) == len(own), "candidates are alternatives, not members"
    assert [s.trajectory.given for s in scored] == [s.trajectory.given for s in own]
    assert sum(s.trajectory.outcome for s in scored) >= sum(s.trajectory.outcome for s in own)
    for s in scored:
        t = s.trajectory
        answered = [j for j, turn in enumerate(t.turns) if turn.right is not None]
        assert answered[-1] == len(t.turns) - 1
        assert t.outcome == float(bool(t.turns[-1].right))
        assert all(j < t.given for j in answered[:-1])
    assert [g.problem.id for g in groups_by_problem(scored)] == [p.id for p in PROBLEMS]


def test_best_of_n_takes_the_right_candidate(parts: Assembly) -> None:
    """With many candidates, revisions are right where any of them was."""
    few, many = (collect(parts, BestOfN(n), group=4).scored for n in (1, 16))

    def revised(scored: list[Scored]) -> list[bool]:
        return [bool(s.trajectory.turns[-1].right) for s in scored if s.trajectory.given]

    assert sum(revised(many)) > sum(revised(few))
    assert all(after or not before for before, after in zip(revised(few), revised(many), strict=True))


def test_rationalized_trajectories_carry_no_hint(parts: Assembly) -> None:
    """Problems that nobody solves are asked again with the gold answer in the prompt, which is then taken out."""
    engine: Any = Spy(parts.engine)
    collector = replace(parts.training_collector(), collection=Rationalized(), group_size=2, engine=engine)
    rows = [problem for problem in HARD for _ in range(2)]
    scored = collector.collect(rows, trajectory_seeds(0, 1, len(rows)), 1.0).scored
    plain = {problem.id: parts.dialogue.opening(problem, TurnSpec(Phase.ATTEMPT, 64)) for problem in HARD}
    assert all(s.trajectory.prompt_ids == plain[s.trajectory.problem.id] for s in scored)
    prompts = [parts.dialogue.hinted(s.trajectory).prompt_ids for s in scored]
    hinted = [p for p in prompts if any(r.prefix_ids[: len(p)] == p for r in engine.requests)]
    assert hinted
    assert not set(hinted) & set(plain.values())
    assert len(set(hinted)) < len(HARD), "solved problems are not asked again"


class Spy:
    """An engine that keeps what it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.requests = engine, list[Request]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.requests += requests
        return self.engine.generate(requests, sampling)


@pytest.mark.parametrize("collection", [TerminateOrContinue(), BestOfN(2)])
def test_the_ledger_counts_what_the_engine_sampled(parts: Assembly, collection: Collection) -> None:
    before = parts.engine.stats.sampled
    collected = collect(parts, collection, group=2)
    assert collected.ledger.sampled == parts.engine.stats.sampled - before


def test_chunks_are_as_large_as_the_engine_has_room_for(parts: Assembly) -> None:
    """As many rows as fit however long they become, whole groups, never more than `max_rows`: the same trajectories."""
    collector = replace(parts.training_collector(), group_size=2, max_rows=8, prover=None)
    rows = [problem for problem in PROBLEMS for _ in range(4)]
    seeds = trajectory_seeds(0, 1, len(rows))
    longest = longest_row(rows, collector.protocol, collector.dialogue, parts.engine.context_length)
    found = {}
    for room, size in ((None, 8), (0, 2), (5 * longest, 4), (5 * longest - 1, 4), (6 * longest, 6), (999 * longest, 8)):
        engine: Any = Spy(parts.engine)
        engine.cache_tokens = room
        chunks: list[int] = []
        found[room] = replace(collector, engine=engine).collect(rows, seeds, 1.0, on_rows=chunks.append)
        assert chunks == [min(size, len(rows) - start) for start in range(0, len(rows), size)]
    first = found[None]
    assert all((other.scored, other.ledger) == (first.scored, first.ledger) for other in found.values())


@pytest.mark.parametrize("env", ["backtrack", "retry", "single", "inline"])
def test_no_row_becomes_longer_than_is_reckoned_with(env: str) -> None:
    """From problems and from histories, with the forced answer that may follow."""
    parts = assemble(read_request(["--env", env, "--protocol.token_budget", "60"]).config)
    collector = parts.collector(parts.config.protocol, with_values=True)
    assert collector.prover is not None
    found = collector.collect(PROBLEMS, [1, 2, 3], 1.3).scored
    for start, scored in zip(PROBLEMS, found, strict=True):
        trajectory = scored.trajectory
        forced = parts.dialogue.forced(trajectory, len(trajectory.turns))
        length = len(forced) + collector.prover.answer_tokens(start)
        for begun in (start, *map(trajectory.branch, range(len(trajectory.turns)))):
            known = longest_row([begun], collector.protocol, parts.dialogue, 10_000, collector.prover.reserve)
            assert length <= known
        assert longest_row([start], collector.protocol, parts.dialogue, 40) == 40  # the model's context


@dataclass(frozen=True)
class Halves(Collection):
    """One's own way of collecting: the second half of each trajectory drawn anew."""

    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        whole = play.rollout(problems, seeds)
        return play.rollout([t.branch(len(t.turns) // 2) for t in whole], [seed + 1 for seed in seeds])


def test_a_new_way_of_collecting_is_a_new_class(parts: Assembly) -> None:
    collected = collect(parts, Halves(), group=2)
    assert [s.trajectory.problem.id for s in collected.scored] == [p.id for p in PROBLEMS for _ in range(2)]
    assert any(s.trajectory.given for s in collected.scored)
    own = sum(
        len(turn.completion.token_ids) for s in collected.scored for turn in s.trajectory.turns[s.trajectory.given :]
    )
    assert collected.ledger.sampled > own, "what was thrown away was paid for, too"
    assert collected.seconds["rollout"] > 0


def test_collecting_syncs_the_engine_and_lets_go_of_it(parts: Assembly) -> None:
    """Around every call, or once around several ones; also where one of them fails."""
    chat = parts.dialogue.chat
    engine = ScriptedEngine(lambda prefix: (*chat.encode("no"), chat.eos_id))
    collector = replace(parts.collector(parts.config.protocol, with_values=False), engine=engine)
    alone = collector.collect(PROBLEMS, [1, 2, 3], 1.0)
    assert (engine.synced, engine.released) == (1, 1)
    with collector.synced() as synced:
        together = synced.collect(PROBLEMS, [1, 2, 3], 1.0)
        assert synced.collect(PROBLEMS, [1, 2, 3], 1.0) == replace(together, seconds=ANY)
        assert (engine.synced, engine.released) == (2, 1)
    assert (alone.scored, alone.ledger) == (together.scored, together.ledger)
    with pytest.raises(ZeroDivisionError), collector.synced():
        _ = 1 / 0
    assert (engine.synced, engine.released) == (3, 3)
    with pytest.raises(FrozenInstanceError):
        collector.max_rows = 1  # type: ignore[misc]


def test_training_pays_for_numerals_and_evaluation_for_equals(parts: Assembly) -> None:
    assert parts.training_collector().grader.forms == "numeral"
    assert parts.collector(parts.config.protocol, with_values=True).grader.forms == "equivalent"
