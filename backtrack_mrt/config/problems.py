"""Settings of the problems that are trained on and held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from backtrack_mrt.config.section import Section, SomeTexts, Texts


class SetSection(Section):
    """Where the rows of a problem set are and what their columns mean."""

    path: SomeTexts = Field(description="files or hub names OWNER/NAME[/SUBSET][:SPLIT] with its rows")
    question: SomeTexts | None = Field(
        None, description="columns whose texts make up the question (null: problem, question, …)"
    )
    answer: SomeTexts | None = Field(
        None, description="column with the gold answer, or several with its tests (null: answer, result, … or solution)"
    )
    choices: Texts | None = Field(
        None,
        description="columns with a multiple choice's options: one with all, or one each (null: choices, …; []: none)",
    )
    first_choice: Literal[0, 1] = Field(0, description="number of the first option, where golds are numbers")
    extract: Literal["auto", "plain", "hashes", "boxed"] = Field(
        "auto", description=r"where the answer stands: as it is, behind a last ####, in the last \boxed{} (auto: tell)"
    )
    where: dict[str, str] = Field({}, description="only rows with these values in these columns")
    rel_tol: float | None = Field(None, gt=0, lt=1, description="relative tolerance of numeric answers (null: exact)")
    bad_golds: Literal["refuse", "skip"] | None = Field(None, description="as data.bad_golds (null: that one)")
    test: bool = Field(False, description="a test set: refused in data.train")


class DataSection(Section):
    """Problems to train on and held-out ones."""

    train: list[str] = Field(
        ["signs/train"],
        min_length=1,
        description="sets: TASK/SPLIT (signs, countdown, words, …), ready-made (gsm8k), files, OWNER/NAME[:SPLIT]",
    )
    eval: list[str] = Field(["signs/test"], min_length=1, description="held-out sets, named in the same way")
    validation: list[str] = Field([], description="held-out sets on which --tune chooses; never those of eval")
    sets: dict[str, SetSection] = Field(
        {}, description="sets of one's own: names for train and eval, each with path, question, answer, …"
    )
    train_size: int | None = Field(4096, gt=0, description="problems drawn from the training sets (null: all)")
    eval_size: int | None = Field(1024, gt=0, description="problems drawn from the held-out sets (null: all)")
    validation_size: int | None = Field(1024, gt=0, description="problems drawn from the validation sets (null: all)")
    bad_golds: Literal["refuse", "skip"] = Field(
        "refuse", description="rows whose gold answer cannot be graded: refuse the set, or leave them out and say so"
    )
    v0: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="training problems with V_0 from … to …, as `backtrack-mrt rate` wrote it (null: all)",
    )
    canaries: float = Field(0, ge=0, lt=1, description="share of training problems with a wrong gold: train nothing")
    traces: list[str] = Field([], description="JSONL files of demonstrations for --algo sft (none: generated ones)")
    seed: int = Field(0, ge=0, description="which problems are drawn")
