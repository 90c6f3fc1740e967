"""The embedded task: unique solutions, disjoint splits, demonstrations that keep the protocol, a model that loads."""

from __future__ import annotations

import random
import re
from functools import cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from backtrack_mrt.data.demonstrations.signs import (
    FORCED_ANSWER,
    INSTRUCTIONS,
    Demonstrator,
    DemoTurn,
    demonstrate_signs,
)
from backtrack_mrt.data.signs import (
    BLOCK_SIZES,
    SPLITS,
    blocks_of,
    generate,
    is_right,
    misses,
    parse_problem,
    sign_patterns,
    signed_sum,
    split_of,
)
from backtrack_mrt.envs.backtrack import BacktrackPhase

TINY = Path(str(files("backtrack_mrt.policy.tiny")))
STEP = re.compile(r"## Step (\d+):((?: [+-]\d)+)(?: = -?\d+;)?")


@cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer()


def demonstrations(count: int, **settings: float) -> list[tuple[str, list[DemoTurn]]]:
    rng = random.Random(0)
    demonstrator = Demonstrator(**settings)
    return [(p.answer, demonstrate_signs(p, rng, demonstrator)) for p in generate("base", count, seed=3)]


@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_each_block_has_one_solution_and_its_signs_are_mixed(size: int) -> None:
    for block in random.Random(0).sample(blocks_of("base", size), 200):
        hits = [signs for signs in sign_patterns(size) if signed_sum(block.numbers, signs) == block.target]
        assert hits == [block.signs]
        assert set(block.signs) == {"+", "-"}


def test_splits_hold_out_blocks_their_reorderings_and_mirror_images() -> None:
    keys = {
        split: {(tuple(sorted(b.numbers)), abs(b.target)) for size in BLOCK_SIZES for b in blocks_of(split, size)}
        for split in SPLITS
    }
    for one, other in combinations(SPLITS, 2):
        assert not keys[one] & keys[other]
    total = sum(map(len, keys.values()))
    for split, share in SPLITS.items():
        assert len(keys[split]) / total == pytest.approx(share, abs=0.03)
    assert split_of((1, 5, 3), 7) == split_of((3, 1, 5), -7)


def test_problems_are_deterministic_and_within_the_dials() -> None:
    problems = generate("test", 40, seed=1)
    assert problems == generate("test", 40, seed=1)
    assert problems != generate("test", 40, seed=2)
    assert problems[12].id == "signs/test/12"
    assert {len(parse_problem(p)) for p in problems} == {3, 4, 5}
    easy = generate("test", 10, min_blocks=2, max_blocks=2, long_share=0.0, max_number=5)
    assert all(len(b.numbers) == 3 and max(b.numbers) <= 5 for p in easy for b in parse_problem(p))
    with pytest.raises(ValueError, match="split"):
        generate("nosuch", 1)
    with pytest.raises(ValueError, match="max_blocks"):
        generate("test", 1, max_blocks=7)


def test_the_checker_reads_the_question_and_survives_any_answer() -> None:
    problem = generate("test", 1)[0]
    assert is_right(problem, problem.answer)
    assert set(misses(problem, problem.answer)) == {0}
    flipped = problem.answer.translate(str.maketrans("+-", "-+"))
    for wrong in (flipped, "", "x", problem.answer + ",+-+", problem.answer.rsplit(",", 1)[0], ",,,,"):
        assert not is_right(problem, wrong)


def test_demonstrations_keep_the_grammar() -> None:
    limits = {BacktrackPhase.ATTEMPT: {None}, BacktrackPhase.DETECT: {BacktrackPhase.ATTEMPT, BacktrackPhase.REVISE}}
    limits |= {BacktrackPhase.BACKTRACK: {BacktrackPhase.DETECT}, BacktrackPhase.REVISE: {BacktrackPhase.BACKTRACK}}
    forced_after = set()
    for gold, turns in demonstrations(400):
        before, target, steps = None, 0, 0
        for turn in turns:
            if turn.phase == FORCED_ANSWER:
                assert turn is turns[-1]
                assert turn.text == f"\\boxed{{{gold}}}"
                forced_after.add(before)
                continue
            assert before in limits[BacktrackPhase(turn.phase)]
            assert turn.instruction.endswith(INSTRUCTIONS[BacktrackPhase(turn.phase)])
            before = turn.phase
            if turn.phase in (BacktrackPhase.ATTEMPT, BacktrackPhase.REVISE):
                *lines, box = turn.text.split("\n")
                numbers = [int(STEP.fullmatch(line)[1]) for line in lines]  # type: ignore[index]
                assert numbers == list(range(target + 1, gold.count(",") + 2))
                assert re.fullmatch(r"\\boxed\{[+-]+(,[+-]+)*\}", box)
                steps = numbers[-1]
            elif turn.phase == BacktrackPhase.DETECT:
                verdict = turn.text.split("\n")[-1]
                assert verdict == "No error" or 1 <= int(verdict.removeprefix("Error in step ")) <= steps
            else:
                target = int(turn.text.removeprefix("Backtrack to step "))
                assert 0 <= target < steps
    assert forced_after == {None, *BacktrackPhase}


def test_injected_errors_are_never_learnt_and_all_else_is() -> None:
    for gold, turns in demonstrations(300, repeat=0.0):
        answer = gold.split(",")
        for turn in turns:
            step = 0
            for span in turn.spans:
                step = int(found[1]) if (found := re.search(r"## Step (\d+):", span.text)) else step
                terms = "" if "boxed" in span.text or "=" in span.text else span.text  # a total is no term
                signs = "".join(re.findall(r" ([+-])\d", terms)) if step else ""
                if signs and turn.phase != BacktrackPhase.DETECT:
                    assert span.learn == (signs == answer[step - 1])
                else:
                    assert span.learn or turn.phase == FORCED_ANSWER


def test_a_demonstration_ends_right_or_out_of_revisions() -> None:
    for gold, turns in demonstrations(300, forced=0.0):
        assert turns[-1].phase == BacktrackPhase.DETECT
        if turns[-1].text.endswith("No error"):
            assert f"\\boxed{{{gold}}}" in turns[-2].text
    careful = {"exact": 1.0, "early": 0.0, "repeat": 0.0, "retry": 0.0, "other": 0.0, "forced": 0.0}
    for _, turns in demonstrations(100, **careful):
        assert turns[-1].text.endswith("No error")


def test_segments_encoded_one_by_one_are_the_whole_text(tokenizer: PreTrainedTokenizerBase) -> None:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    for _, turns in demonstrations(100):
        for turn in turns:
            ids = [i for span in turn.spans for i in encode(span.text)]
            assert ids == encode(turn.text)
            assert tokenizer.decode(ids) == turn.text
            assert tokenizer.decode(encode(turn.instruction)) == turn.instruction
    gold = generate("test", 1)[0].answer
    assert len(encode(gold + "}")) == gold.count(",") + 2  # one token per block: the meta-prover is cheap


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n")))
def test_ascii_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = load_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    if not set(tokenizer.all_special_tokens) & set(re.findall(r"<\w+>", text)):
        assert tokenizer.decode(ids) == text


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_other_text_does_not_crash_the_tokenizer(text: str) -> None:
    tokenizer = load_tokenizer()
    assert isinstance(tokenizer.decode(tokenizer.encode(text)), str)


def test_the_chat_template_puts_one_bos_and_ends_replies(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "user", "content": "1) 3 5 6 = 4;\nSolve."}, {"role": "assistant", "content": "x"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<bos>1) 3 5 6 = 4;\nSolve.x<eos>"
    assert tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) == text[:-6]


def test_the_embedded_model_is_small_and_copies_what_is_secured(tokenizer: PreTrainedTokenizerBase) -> None:
    assert sum(path.stat().st_size for path in TINY.iterdir() if path.is_file()) <= 4_000_000
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    assert model.config.vocab_size == len(tokenizer)
    problem = generate("validation", 1)[0]
    attempt, check = demonstrate_signs(problem, random.Random(0), Demonstrator(clean=1.0, forced=0.0))
    solved = f"{attempt.instruction}{attempt.text}<eos>{check.instruction}{check.text}<eos>Answer.\\boxed{{"
    values = []
    for prefix in (problem.question + "\nAnswer.\\boxed{", solved):
        ids, gold = tokenizer.encode("<bos>" + prefix), tokenizer.encode(problem.answer + "}")
        with torch.no_grad():
            logprobs = model(torch.tensor([ids + gold])).logits[0].log_softmax(-1)
        values.append(sum(logprobs[len(ids) + t - 1, token].item() for t, token in enumerate(gold)))
    assert values[0] < values[1]
    assert values[1] > -0.3
