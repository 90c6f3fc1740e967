r"""The embedded model's tokenizer: whole pieces of the SIGNS protocol as tokens, so that traces are short and readable.

A regular expression splits text greedily, longest piece first, into known pieces; printable ASCII that belongs to no
piece becomes one token per character, anything else the unknown token (it does not crash, and does not round trip).
No piece starts where another one could have been continued across a segment joint of a demonstration, so segments that
are encoded one by one give the ids of the whole text.
"""

from __future__ import annotations

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backtrack_mrt.data.demonstrations.signs import INSTRUCTIONS
from backtrack_mrt.data.signs import BLOCK_SIZES, MAX_BLOCKS, MAX_NUMBER, sign_patterns

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
TOTALS = range(-MAX_NUMBER * max(BLOCK_SIZES), MAX_NUMBER * max(BLOCK_SIZES) + 1)
MISSES = range(2 * TOTALS.start, 2 * TOTALS.stop, 2)  # flipping a sign moves the sum by an even amount
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


Pieces = dict[str, dict[str, float | str]]


def pieces() -> Pieces:
    """Every multi-character piece and what it stands for: `value` (a number), `step` (an index), `signs` (a pattern).

    The features only set the model's first embedding, so that it need not learn what 4 and 5 have in common."""
    found = protocol_pieces(MAX_BLOCKS, "{})", " {})")
    for n in range(1, MAX_NUMBER + 1):
        found |= {f" {n}": {"value": n}, f" +{n}": {"value": n}, f" -{n}": {"value": -n}}
    found |= {f" = {total};": {"value": total} for total in TOTALS}
    found |= {f" {miss};": {"value": miss} for miss in MISSES}
    for size in BLOCK_SIZES:
        for signs in sign_patterns(size):
            found |= {signs: {"signs": signs}, f",{signs}": {"signs": signs}}
    return found


def protocol_pieces(steps: int, *numbered: str) -> Pieces:
    """Those of the protocol, for so many steps; `numbered` are further ones with the number of a step."""
    found: Pieces = {text: {} for text in INSTRUCTIONS.values()}
    found |= {"\nAnswer.": {}, "Answer.": {}, "\n\\boxed{": {}, r"\boxed{": {}, "Miss:": {}, "\nNo error": {}}
    for step in range(1, steps + 1):
        for text in (*numbered, "## Step {}:", "\n## Step {}:", "\nError in step {}"):
            found[text.format(step)] = {"step": step}
        found[f"Backtrack to step {step - 1}"] = {"step": step - 1}
    return found


def build_tokenizer(found: Pieces) -> PreTrainedTokenizerFast:
    """A WordLevel tokenizer over the pieces; `decode(encode(text)) == text` for ASCII text without control characters
    other than the newline. It adds no BOS by itself: the chat template does."""
    words = list(found)
    words += [char for char in string.printable[:95] + "\n" if char not in words]
    by_length = sorted(words, key=len, reverse=True)
    pattern = "|".join(map(re.escape, by_length)) + r"|[\s\S]"
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )
