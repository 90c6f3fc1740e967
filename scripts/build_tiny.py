r"""Builds the embedded base model: a Llama of 0.9 M parameters, warm-started on SIGNS demonstrations.

    python scripts/build_tiny.py            # offline, one core; writes backtrack_mrt/tiny/

The data are endless: a fresh demonstration per trace, blocks of the `base` split only. Matrices are trained by Muon,
embeddings, head and norms by AdamW, both on a cosine schedule. Prints a line every few seconds.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from tiny_tokenizer import build_tokenizer, pieces
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backtrack_mrt.data.signs import blocks_of, generate
from backtrack_mrt.data.signs_demo import Demonstrator, DemoTurn, demonstrate

OUT = Path(__file__).parents[1] / "backtrack_mrt" / "tiny"
POOL = 512  # traces drawn and sorted by length at a time, so that batches hold little padding


def new_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> LlamaForCausalLM:
    """A fresh Llama whose input embedding already says what a piece's number, step or sign pattern is."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=352 * width // 128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.normal_(0, 0.3)
        for text, features in pieces().items():
            row = table[tokenizer.convert_tokens_to_ids(text)]
            if "value" in features:  # a linear scale, so that sums are linear, and waves, so that values are told apart
                value = float(features["value"])
                waves = [
                    f(2 * math.pi * value / period) for period in (2, 3, 5, 7, 12, 24, 72) for f in (math.sin, math.cos)
                ]
                row[:16] = torch.tensor([value / 9, abs(value) / 9, *waves])
            if "step" in features:
                row[16 + int(features["step"])] = 1.5
            if "signs" in features:
                signs = torch.tensor([1.5 if s == "+" else -1.5 for s in str(features["signs"])])
                row[24 : 24 + len(signs)] = signs
    return model


class Encoder:
    """Turns demonstrations into token ids and loss weights, both of shape (T,)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, emphasis: dict[str, float]) -> None:
        self.emphasis = emphasis
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.ids = lru_cache(maxsize=200_000)(lambda text: tokenizer.encode(text, add_special_tokens=False))

    def __call__(self, turns: list[DemoTurn]) -> tuple[list[int], list[float]]:
        ids, weights = [self.bos], [0.0]
        question, _, _ = turns[0].instruction.partition("\n")
        for turn in turns:
            # a question is encoded block by block: blocks repeat, and the ids are the same
            instruction = turn.instruction
            if turn is turns[0]:
                for k, block in enumerate(question.split("; ")):
                    part = (" " if k else "") + block.removesuffix(";") + ";"
                    ids += self.ids(part)
                instruction = instruction[len(question) :]
            ids += self.ids(instruction)
            weights += [0.0] * (len(ids) - len(weights))
            for span in turn.spans:
                ids += self.ids(span.text)
                weights += [self.emphasis.get(turn.phase, 1.0) * span.learn] * (len(ids) - len(weights))
            ids.append(self.eos)
            weights.append(1.0)
        return ids, weights


def batches(
    encode: Encoder, seed: int, batch_tokens: int, long_share: float, demonstrator: Demonstrator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of ids and weights, both (B, T), right-padded; one block alone is a drill, six stretch the range."""
    rng = random.Random(seed)
    draw = 0
    while True:
        traces = []
        for low, high, share in ((1, 2, 0.2), (3, 5, 0.7), (4, 6, 0.1)):
            draw += 1
            args = {"min_blocks": low, "max_blocks": high, "long_share": long_share}
            for problem in generate("base", int(POOL * share), seed * 1_000_000 + draw, **args):
                traces.append(encode(demonstrate(problem, rng, demonstrator)))
        traces.sort(key=lambda trace: len(trace[0]))
        chunks, chunk = [], []
        for trace in traces:
            if chunk and (len(chunk) + 1) * len(trace[0]) > batch_tokens:
                chunks.append(chunk)
                chunk = []
            chunk.append(trace)
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(len(ids) for ids, _ in chunk)
            yield (
                torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in chunk]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in chunk]),
            )


def train(model: LlamaForCausalLM, data: Iterator[tuple[torch.Tensor, torch.Tensor]], tokens: int, lr: float) -> None:
    """One pass over `tokens` tokens (padding excluded), cosine schedule with a short warm-up."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    model.train()
    start = shown = time.time()
    seen, step, running = 0, 0, math.nan
    while seen < tokens:
        ids, weights = next(data)
        share = seen / tokens
        scale = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = lr * scale
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        learnt = weights[:, 1:] > 0
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), ids[:, 1:][learnt], reduction="none")
        loss = (losses * weights[:, 1:][learnt]).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen, step = seen + int((ids > 0).sum()), step + 1
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if time.time() - shown > 10 or seen >= tokens:
            shown = time.time()
            rate = seen / (shown - start)
            left = (tokens - seen) / rate
            print(
                f"step {step}  {seen / 1e6:.2f} M tokens  loss {running:.4f}  {rate:,.0f} tokens/s  {left:.0f} s left",
                flush=True,
            )


def main() -> None:
    """Parses the flags, trains, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="directory to write (default: the one in the package)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=float, default=10e6, help="training tokens")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--long-share", type=float, default=0.5, help="share of four-number blocks")
    parser.add_argument("--demo", nargs="*", default=[], help="demonstrator settings, such as repeat=0.3")
    parser.add_argument("--detect-weight", type=float, default=3.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    for size in (3, 4):
        blocks_of("base", size)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, args.width, args.layers)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens in the vocabulary")
    settings = {key: float(value) for key, value in (item.split("=") for item in args.demo)}
    data = batches(
        Encoder(tokenizer, {"detect": args.detect_weight}),
        args.seed,
        args.batch_tokens,
        args.long_share,
        Demonstrator(**settings),
    )
    train(model, data, int(args.tokens), args.lr)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
