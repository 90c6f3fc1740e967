"""Chat templates at the level of tokens: a trajectory is built by appending segments, never by rendering again.

Rendering a conversation anew each turn is wrong for training: templates trim messages and stamp dates, tokenisers merge
across joints, and the text of a special token inside a model's turn would become that token. So the template is taken
apart once, at start-up, into the constant pieces around the contents, and contents are encoded with special tokens
switched off.
"""

from __future__ import annotations

from typing import Any, Protocol

from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Completion, TokenIds

_USER, _REPLY, _NEXT = "⟪user⟫", "⟪reply⟫", "⟪next⟫"  # stand for contents while the template is taken apart


class Chat(Protocol):
    """How contents become tokens: opening(instruction) · reply · following(instruction) · reply · …"""

    @property
    def eos_id(self) -> int:
        """The token that ends a message."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply; they belong to it."""

    def opening(self, instruction: str) -> TokenIds:
        """Ids up to the start of the first reply."""

    def following(self, instruction: str, after: Completion) -> TokenIds:
        """Ids from the end of the completion `after` to the start of the next reply."""

    def encode(self, text: str) -> TokenIds:
        """Ids of content: never a structural token, whatever the text says. Total: any str has ids."""

    def decode(self, ids: TokenIds) -> str:
        """Text of a completion without the stop token at its end."""


class ByteChat:
    """A chat without a tokenizer: ids are the bytes of the text in UTF-8, and one id more ends a message."""

    eos_id = 256
    stop_ids = frozenset({eos_id})

    def opening(self, instruction: str) -> TokenIds:
        return (*self.encode(instruction), self.eos_id)

    def following(self, instruction: str, after: Completion) -> TokenIds:
        closed = after.token_ids[-1:] == (self.eos_id,)
        return (*(() if closed else (self.eos_id,)), *self.opening(instruction))

    def encode(self, text: str) -> TokenIds:
        return tuple(text.encode("utf-8", "replace"))

    def decode(self, ids: TokenIds) -> str:
        return bytes(i for i in ids if i < self.eos_id).decode("utf-8", "replace")


class ChatFormat:
    """Segments of `tokenizer`'s chat template.

    A trajectory is: opening(instruction) · reply · following(instruction) · reply · …
    Raises UserError for a template without generation prompt, one that breaks the prefix property (a conversation's
    rendering must begin with the rendering of its earlier messages), or a doubled BOS.
    """

    def __init__(self, tokenizer: Any, system: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._system = [{"role": "system", "content": system}] if system else []
        if not getattr(tokenizer, "chat_template", None):
            raise self._refusal("it has no chat template", "Use an instruction-tuned model or set a chat template.")
        before, between, after_reply, tail = self._take_apart()
        if between != tail:
            raise self._refusal(
                f"its chat template breaks the prefix property: {between!r} before a reply, then {tail!r}",
                "Use a template that renders every message independently of the later ones.",
            )
        eos = tokenizer.eos_token
        close, _, rest = after_reply.partition(eos) if eos and eos in after_reply else ("", "", after_reply)
        if close.strip() or not eos or eos not in after_reply:
            raise self._refusal(
                f"its chat template ends an assistant message with {after_reply!r}, not with the eos token {eos!r}",
                "Set the tokenizer's eos_token to the token that ends an assistant message.",
            )
        self._before, self._to_reply = self._structure(before), self._structure(between)
        self._to_next = self._structure(rest)
        self.eos_id: int = tokenizer.convert_tokens_to_ids(eos)
        self.stop_ids = frozenset({self.eos_id})
        bos = tokenizer.bos_token_id
        if bos is not None and self._before[:2] == (bos, bos):
            raise self._refusal("its chat template writes BOS twice", "Remove bos_token from the chat template.")

    def opening(self, instruction: str) -> TokenIds:
        """Ids up to the start of the first reply: BOS, system message, first user message, generation prompt."""
        return self._before + self.encode(instruction) + self._to_reply

    def following(self, instruction: str, after: Completion) -> TokenIds:
        """Ids from the end of the completion `after` to the start of the next reply. The end-of-message token is
        sampled by the model; it is supplied here only if the completion was cut off before it."""
        closed = after.token_ids[-1:] and after.token_ids[-1] in self.stop_ids
        end = () if closed else (self.eos_id,)
        return end + self._to_next + self.encode(instruction) + self._to_reply

    def encode(self, text: str) -> TokenIds:
        """Ids of content: never a special token, whatever the text says."""
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: TokenIds) -> str:
        """Text of a completion without the stop token at its end; other special tokens show as text."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _take_apart(self) -> tuple[str, str, str, str]:
        """The template's constant text: before the first user content, between it and the reply, from the reply to
        the next user content, and from there to the next reply."""
        first = [*self._system, {"role": "user", "content": _USER}]
        whole = [*first, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}]
        opening, conversation = self._render(first), self._render(whole)
        before, found, between = opening.partition(_USER)
        start, reply_found, rest = conversation.partition(_REPLY)
        after_reply, next_found, tail = rest.partition(_NEXT)
        if not (found and reply_found and next_found) or start != opening:
            raise self._refusal(
                "its chat template breaks the prefix property: a conversation does not start with its own beginning",
                "Use a template that renders every message independently of the later ones.",
            )
        return before, between, after_reply, tail

    def _render(self, messages: list[dict[str, str]]) -> str:
        # A fixed date: Llama's template would stamp today's, and a run could not be repeated tomorrow.
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
        )
        return str(rendered)

    def _structure(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refusal(self, reason: str, remedy: str) -> UserError:
        return UserError("model", getattr(self.tokenizer, "name_or_path", "?"), reason, remedy)
