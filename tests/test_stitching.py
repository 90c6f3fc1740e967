"""Warm-start data from own rollouts, on hand-made groups."""

from __future__ import annotations

import random

from backtrack_mrt.chat import ByteChat
from backtrack_mrt.demonstrations import Demonstration, tokenise
from backtrack_mrt.dialogue import Dialogue
from backtrack_mrt.engines.scripted import ScriptedEngine
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.prompting import load_prompts
from backtrack_mrt.protocol import graded
from backtrack_mrt.rollout import rollout
from backtrack_mrt.stitching import FORMS, shared_steps, stitched
from backtrack_mrt.types import Group, Problem, Sampling, Scored, Trajectory


def byte_dialogue(env: str) -> Dialogue:
    return Dialogue(ByteChat(), load_prompts(env, "instruct"))


PROBLEM = Problem("p", "1 + 1 + 1", "3")
RIGHT = "## Step 1: 1 + 1 = 2\n## Step 2: 2 + 1 = 3\n\\boxed{3}"
LATE = "## Step 1: 1 + 1 = 2\n## Step 2: 2 + 1 = 4\n\\boxed{4}"
EARLY = "## Step 1: 1 + 1 = 3\n## Step 2: 3 + 1 = 4\n\\boxed{4}"


def member(*texts: str) -> Trajectory:
    """A trajectory of the turns `texts`; 3 is right."""
    dialogue = byte_dialogue("backtrack")
    replies = [(*dialogue.chat.encode(text), dialogue.chat.eos_id) for text in texts]
    engine = ScriptedEngine(replies)
    sampling = Sampling(stop_ids=dialogue.chat.stop_ids)
    (trajectory,) = rollout([PROBLEM], [0], Backtrack(max_revisions=len(texts) // 3), dialogue, engine, sampling)
    return graded(trajectory, lambda answer: "right" if answer == "3" else "wrong")


def group(*trajectories: Trajectory) -> Group:
    return Group(PROBLEM, tuple(Scored(t) for t in trajectories))


def texts(form: str, *trajectories: Trajectory) -> list[tuple[str, str, bool]]:
    ((_, turns),) = stitched([group(*trajectories)], seed=0)[form]
    return [(str(phase), span.text, span.learn) for phase, spans in turns for span in spans]


def test_backtrack_joins_where_the_attempts_part() -> None:
    assert shared_steps(member(LATE), member(RIGHT)) == 1
    assert texts("backtrack", member(EARLY), member(LATE), member(RIGHT)) == [
        ("attempt", LATE, False),
        ("detect", "Error in step 2", True),
        ("backtrack", "Backtrack to step 1", True),
        ("revise", "## Step 2: 2 + 1 = 3\n\\boxed{3}", True),
    ]


def test_the_models_own_check_is_kept_if_it_names_the_step() -> None:
    found = "2 + 1 is not 4.\nError in step 2"
    wrong = member(LATE, found, "Backtrack to step 1", "## Step 2: 2 + 1 = 4\n\\boxed{4}")
    assert texts("backtrack", wrong, member(RIGHT))[1] == ("detect", found, True)
    other = member(LATE, "Error in step 1", "Backtrack to step 0", RIGHT)
    assert texts("backtrack", other, member(RIGHT))[1] == ("detect", "Error in step 2", True)


def test_rise_and_star() -> None:
    assert texts("rise", member(EARLY), member(RIGHT)) == [("attempt", EARLY, False), ("retry", RIGHT, True)]
    assert texts("star", member(EARLY), member(RIGHT)) == [("attempt", RIGHT, True)]


def test_groups_without_what_it_takes_are_left_out() -> None:
    broken = member("no steps")
    assert broken.turns[0].parsed is None
    useless = [group(member(RIGHT)), group(member(EARLY)), group(broken, member(RIGHT))]
    assert stitched(useless, 0) == {"backtrack": [], "star": [], "rise": []}


def test_the_protocols_accept_what_is_stitched() -> None:
    from backtrack_mrt.envs.retry import Retry
    from backtrack_mrt.envs.single import Single

    protocols = {"backtrack": Backtrack(), "rise": Retry(), "star": Single()}
    for form, (env, stitch) in FORMS.items():
        turns = stitch(group(member(LATE), member(RIGHT)), random.Random(0))
        assert turns is not None
        demonstration = Demonstration(PROBLEM, tuple(spans for _, spans in turns))
        tokenised = tokenise(demonstration, protocols[form], byte_dialogue(env))
        assert len(tokenised.trajectory.turns) == len(turns)
        assert tokenised.trajectory.answer == "3"
