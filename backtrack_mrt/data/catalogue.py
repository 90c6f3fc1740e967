"""Ready-made problem sets, one short entry each, and what the names of `data.train` and `data.eval` stand for.

`data.sets` adds entries of the same form. A set may be given another place, ``NAME=FILE``: the columns of another copy
need not be those of the hub, so they are found anew, while everything else stays. The place of a ready-made set on the
hub, or a slice of it (``openai/gsm8k/main:train[:100]``), means that set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from backtrack_mrt.config import SetSection
from backtrack_mrt.data.files import RawRow, is_local, stem
from backtrack_mrt.data.sources import HUB, read_rows
from backtrack_mrt.errors import UserError, did_you_mean

_FIRST = re.compile("[/:=]")
_MATH = "EleutherAI/hendrycks_math"
_SUBJECTS = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"


def _train(path: str | list[str], question: str, answer: str | list[str], **more: object) -> SetSection:
    """A set to train on: rows without an answer that can be graded are left out, and said to be."""
    return SetSection.model_validate({"path": path, "question": question, "answer": answer, "bad_golds": "skip"} | more)


def _test(path: str | list[str], question: str, answer: str | list[str], **more: object) -> SetSection:
    return SetSection.model_validate({"path": path, "question": question, "answer": answer, "test": True} | more)


_GPQA = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
_MBPP, _MBPP_TESTS = "google-research-datasets/mbpp/sanitized", ["test_imports", "test_list"]

CATALOGUE: dict[str, SetSection] = {
    "numina-math": _train(
        "AI-MO/NuminaMath-1.5:train",
        "problem",
        "answer",
        # Proofs have no answer, and of a multiple choice the answer is a letter.
        where={"question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
    ),
    "numina-math-cot": _train("AI-MO/NuminaMath-CoT:train", "problem", "solution", extract="boxed"),
    "deepscaler": _train("agentica-org/DeepScaleR-Preview-Dataset:train", "problem", "answer"),
    "metamath": _train("meta-math/MetaMathQA:train", "query", "response"),  # "The answer is: …" at the end
    "gsm8k": _train("openai/gsm8k/main:train", "question", "answer", extract="hashes"),
    "gsm8k-test": _test("openai/gsm8k/main:test", "question", "answer", extract="hashes"),
    "math": _train([f"{_MATH}/{name}:train" for name in _SUBJECTS.split()], "problem", "solution", extract="boxed"),
    "math-test": _test([f"{_MATH}/{name}:test" for name in _SUBJECTS.split()], "problem", "solution", extract="boxed"),
    "math500": _test("HuggingFaceH4/MATH-500:test", "problem", "answer"),
    "mawps": _train("MU-NLPC/Calc-mawps:train", "question", "result"),
    "mawps-test": _test("MU-NLPC/Calc-mawps:test", "question", "result", bad_golds="skip"),
    "asdiv": _train("MU-NLPC/Calc-asdiv_a:test", "question", "result"),  # the arithmetic part; it has one split
    "svamp": _train("ChilleD/SVAMP:train", "question_concat", "Answer"),
    "svamp-test": _test("ChilleD/SVAMP:test", "question_concat", "Answer"),
    "aime24": _test("HuggingFaceH4/aime_2024:train", "problem", "answer"),
    "aime25": _test("math-ai/aime25:test", "problem", "answer"),
    "amc23": _test("math-ai/amc23:test", "question", "answer"),
    # Measured and computed quantities, given to a few digits: Lewkowycz et al. (2206.14858) allow one per cent.
    "minerva-math": _test("math-ai/minervamath:test", "question", "answer", rel_tol=0.01),
    # Multiple choice, for `--grader choice`.
    "aqua": _train("deepmind/aqua_rat/raw:train", "question", "correct", choices="options"),
    "commonsense-qa": _train("tau/commonsense_qa:train", "question", "answerKey", choices="choices"),
    "commonsense-qa-test": _test("tau/commonsense_qa:validation", "question", "answerKey", choices="choices"),
    "arc-challenge": _test("allenai/ai2_arc/ARC-Challenge:test", "question", "answerKey", choices="choices"),
    "openbookqa": _test("allenai/openbookqa/main:test", "question_stem", "answerKey", choices="choices"),
    "mmlu": _test("cais/mmlu/all:test", "question", "answer", choices="choices"),
    "mmlu-pro": _test("TIGER-Lab/MMLU-Pro:test", "question", "answer", choices="options"),
    "gpqa-diamond": _test("Idavidrein/gpqa/gpqa_diamond:train", "Question", "Correct Answer", choices=_GPQA),
    "hellaswag": _test("Rowan/hellaswag:validation", "ctx", "label", choices="endings"),
    # Unit tests, for `--grader python`.
    "mbpp": _train(f"{_MBPP}:train", "prompt", _MBPP_TESTS),
    "mbpp-test": _test(f"{_MBPP}:test", "prompt", _MBPP_TESTS),
    "humaneval": _test("openai/openai_humaneval:test", "prompt", "test"),
}


def find_set(spec: str, own: Mapping[str, SetSection], field: str) -> tuple[str, SetSection]:
    """The short name of the set that `spec` names, and its entry. `field` is what a UserError blames."""
    known = CATALOGUE | {name: _inheriting(name, entry) for name, entry in own.items()}
    name, moved, place = spec.partition("=")
    if moved and name in known:
        entry = own[name].model_copy(update={"path": [place]}) if name in own else SetSection(path=[place])
        return name, _inheriting(name, entry)
    if spec in known:
        return spec, known[spec]
    if is_local(spec):
        return stem(spec), SetSection(path=[spec])
    hub = HUB.fullmatch(spec)
    if hub is None or Path(spec).exists() or hub["name"].partition("/")[0] in known:
        remedy = "Give a known name, a .jsonl, .json, .csv or .parquet file, a folder, or OWNER/NAME[/SUBSET][:SPLIT]."
        raise UserError(field, spec, "not a problem set", f"{remedy} {did_you_mean(_FIRST.split(spec)[0], known)}")
    place = spec.partition("[")[0] if hub["split"] else f"{spec}:train"
    ready = next((entry for entry in CATALOGUE.values() if place in entry.path), SetSection(path=[spec]))
    return hub["name"].rpartition("/")[2], ready.model_copy(update={"path": [spec]})


def read_set(spec: str, field: str) -> tuple[str, list[RawRow]]:
    """The short name and all rows of the set that `spec` names, for those who read columns of their own."""
    name, entry = find_set(spec, {}, field)
    return name, [row for place in entry.path for row in read_rows(place, field, spec)]


def refuse_test_set(spec: str, entry: SetSection, field: str) -> None:
    """Raises UserError if the entry is a test set."""
    if entry.test:
        remedy = "Name it in data.eval: the training problems that it repeats are then left out."
        raise UserError(field, spec, "a test set, which must not be trained on", remedy)


def _inheriting(name: str, entry: SetSection) -> SetSection:
    """An entry of one's own; under the name of a ready-made set it keeps whatever of that is no column."""
    if name not in CATALOGUE:
        return entry
    kept = {"where", "rel_tol", "bad_golds", "test"} - entry.model_fields_set
    return entry.model_copy(update={key: getattr(CATALOGUE[name], key) for key in kept})
