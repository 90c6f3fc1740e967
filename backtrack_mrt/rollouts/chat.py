"""Chat templates at the level of tokens: a trajectory is built by appending segments, never by rendering again.

Rendering a conversation anew each turn is wrong for training: templates trim messages and stamp dates, tokenisers merge
across joints, and the text of a special token inside a model's turn would become that token. So the template is taken
apart once, at start-up, into the constant pieces around the contents, and contents are encoded with special tokens
switched off. Contents are taken as they are, also where the template would trim them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Protocol

from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.thinking import closed_thought, opened_thought, template_switches, without_empty_thought
from backtrack_mrt.types import Completion, TokenIds

# Contents while the template is taken apart. Replies hold what some templates cut out of earlier messages.
_USERS = ("⟪first⟫", "⟪second⟫", "⟪third⟫")
_WORD = "⟪reply⟫"
_ANSWERS = (_WORD, "⟪answer⟫")
_THOUGHTS = (f"⟪thought⟫</think>{_WORD}", "⟪doubt⟫</think>⟪answer⟫")
_REPLIES = (f"<think>{_THOUGHTS[0]}", f"<think>{_THOUGHTS[1]}")
# For templates that write the date: a run must be repeatable tomorrow. Templates are given texts and no functions.
_TODAY = datetime(2024, 7, 26)
_DATE = {f"%{dash}{kind}": _TODAY.strftime(f"%{dash}{kind}") for kind in "aAbBdeFHIjmMpSuwyY" for dash in ("", "-")}
_FROZEN = """{% macro strftime_now(format) %}{% set told = namespace(text=format) %}\
{% for part, text in frozen_date.items() %}{% set told.text = told.text | replace(part, text) %}{% endfor %}\
{{ told.text }}{% endmacro %}
"""
_REMEMBERED = 1024  # texts, and ids, that are not read anew when they come again
_BEHIND = "0"  # a token is read behind this: at the start of a text some tokenizers leave out its blank
_INDEPENDENT = "Use a template that renders every message independently of the later ones."


class Chat(Protocol):
    """How contents become tokens: opening(instruction) · reply · following(instruction) · reply · …"""

    @property
    def eos_id(self) -> int:
        """The token that ends a message."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply; they belong to it."""

    @property
    def follows(self) -> bool:
        """Whether a reply can be followed by another message. If not, `following` must not be called."""

    @property
    def begun(self) -> str:
        """The text with which the template begins every reply: a role, and in some an opened thought."""

    @property
    def pieces(self) -> Mapping[int, str]:
        """The text of every token that a reply can hold, as it reads behind other text."""

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
    follows = True
    begun = ""
    pieces: Mapping[int, str] = MappingProxyType(
        {byte: bytes([byte]).decode("utf-8", "replace") for byte in range(256)}
    )

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

    one_message: the model is asked once and answers in one message. Then the template need not go on after a reply, as
    those of R1-type models do not: they cut the thought out of earlier replies (`follows` is False).

    thinking: whether a hybrid model thinks before it answers (None: where it answers in one message). False also closes
    a thought that the template opens in any case. Without thoughts every reply is begun with the template's empty
    thought, also where the template would leave that out of earlier replies.

    Raises UserError for a template that is missing or fails, needs a generation prompt and has none, drops the system
    message, breaks the prefix property (a conversation's rendering must be its earlier rendering and more), or writes
    no or two BOS; and for a tokenizer with which a text could forge the end of a message.
    """

    def __init__(
        self, tokenizer: Any, system: str | None = None, one_message: bool = False, thinking: bool | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._switches = template_switches(one_message if thinking is None else thinking)
        self._system = system
        self._ids_of = lru_cache(_REMEMBERED)(self._encoded)  # instructions come again and again
        self._text_of = lru_cache(_REMEMBERED)(self._decoded)  # a completion is read to be cut, and as a turn
        if not getattr(tokenizer, "chat_template", None):
            raise self._refusal(
                "it has no chat template", "Use an instruction-tuned model, or add a chat_template.jinja to its files."
            )
        before, prompt = self._opening()
        to_reply = closed_thought(prompt) if thinking is False else prompt
        self.begun = to_reply  # the generation prompt
        self.eos_id: int = tokenizer.convert_tokens_to_ids(self._end)
        self.stop_ids = frozenset({self.eos_id, tokenizer.eos_token_id} - {None})
        self._before, self._to_reply = self._structure(before), self._structure(to_reply)
        self._to_next: TokenIds = ()
        try:
            self._to_next = self._structure(self._between(before, prompt, to_reply))
            self.follows = True
        except UserError:
            if not one_message:
                raise
            self.follows = False
        self._check_bos()
        self._check_forgery()

    @cached_property
    def pieces(self) -> Mapping[int, str]:
        """The text of every token but the special ones."""
        special, before = set(self.tokenizer.all_special_ids), self.encode(_BEHIND)
        ids = sorted(set(self.tokenizer.get_vocab().values()) - special)
        rows = [[*before, token] for token in ids]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return {token: text.removeprefix(_BEHIND) for token, text in zip(ids, texts, strict=True)}

    def opening(self, instruction: str) -> TokenIds:
        """Ids up to the start of the first reply: BOS, system message, first user message, generation prompt."""
        return self._before + self.encode(instruction) + self._to_reply

    def following(self, instruction: str, after: Completion) -> TokenIds:
        """Ids from the end of the completion `after` to the start of the next reply. The end-of-message token is
        sampled by the model; it is supplied here only if the completion was cut off before it."""
        if not self.follows:
            raise ValueError("the chat template does not go on after a reply")
        end = () if after.token_ids[-1:] == (self.eos_id,) else (self.eos_id,)
        return end + self._to_next + self.encode(instruction) + self._to_reply

    def encode(self, text: str) -> TokenIds:
        """Ids of content: never a structural token, whatever the text says. Lone surrogates become "?"."""
        return self._ids_of(text)

    def decode(self, ids: TokenIds) -> str:
        """Text of a completion without the stop token at its end; other special tokens show as text."""
        return self._text_of(ids[:-1] if ids and ids[-1] in self.stop_ids else ids)

    def _encoded(self, text: str) -> TokenIds:
        clean = text.encode("utf-8", "replace").decode()
        return tuple(self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _decoded(self, ids: TokenIds) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _opening(self) -> tuple[str, str]:
        """The template's constant text before the first user content, and from there to the reply. Finds the
        token that ends a reply."""
        opening = self._render(_USERS[:1])
        before, found, to_reply = opening.partition(_USERS[0])
        if self._system and self._system.strip() not in before:
            raise self._refusal("its chat template drops the system message", "Remove system.md from the prompt style.")
        start, replied, rest = self._render(_USERS[:1], (_WORD,), generation_prompt=False).partition(_WORD)
        if not found or not replied:
            raise self._refusal("its chat template does not show every message as it is", _INDEPENDENT)
        # Some templates write a blank before a reply: the model does so itself, in one token with the first word.
        if self._system and self._system.strip() not in start:
            reason = "its chat template shows the system message only before the last question"
            raise self._refusal(reason, "Remove system.md from the prompt style.")
        self._blank = start.removeprefix(opening) if start.startswith(opening) else ""
        prompted = start == opening + self._blank and not self._blank.strip()
        if not prompted and opening == self._render(_USERS[:1], generation_prompt=False):
            raise self._refusal(
                "its chat template has no generation prompt", "Use a template that honours add_generation_prompt."
            )
        self._end = self._ending(rest, to_reply)
        return before, to_reply

    def _ending(self, rest: str, to_reply: str) -> str:
        """The token that ends a reply, behind which the template writes `rest`: the tokenizer's eos token, or another
        special token, as in published models whose eos token ends a text and not a message."""
        eos, rest = self.tokenizer.eos_token, rest.lstrip()
        if eos and rest.startswith(eos):
            return str(eos)
        own = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        found = max((token for token in own if rest.startswith(token)), key=len, default="")
        if not found or to_reply.count(found) > 1:  # it has another meaning, too
            raise self._refusal(
                f"its chat template ends an assistant message with {rest!r}, not with the eos token {eos!r}",
                "Name the token that ends an assistant message: --model.eos_token TOKEN."
                if rest
                else "Use a template that ends every message with a special token.",
            )
        return found

    def _between(self, before: str, prompt: str, to_reply: str) -> str:
        """The template's constant text from the end of a reply to the next user content. Proves that a long
        conversation is made of these pieces: `before`, the contents, and the `prompt` to a reply, of which we make
        `to_reply`."""
        # How an earlier reply is begun, how much of its content that prompt has said, and what the model says of it.
        forms = [(to_reply + self._blank, "", _REPLIES)]
        if (bare := without_empty_thought(to_reply)) is not None:
            forms += [(to_reply, "", _ANSWERS), (bare, "", _ANSWERS)]
        if opened := opened_thought(to_reply):
            forms.append((to_reply.removesuffix(opened), opened, _THOUGHTS))
        for begun, opened, replies in forms:
            contents = [opened + reply for reply in replies]
            conversation = self._render(_USERS, contents)
            _, _, rest = conversation.partition(contents[0])
            after_reply, _, _ = rest.partition(_USERS[1])
            told = [piece for content in contents for piece in (begun, content, after_reply)]
            pieces = [before, _USERS[0], *told[:3], _USERS[1], *told[3:], _USERS[2], prompt]
            if "".join(pieces) == conversation:
                _, end, to_next = after_reply.partition(self._end)
                if end:
                    return to_next
                reason = f"its chat template ends the last reply with {self._end!r}, earlier ones with {after_reply!r}"
                raise self._refusal(reason, "Let the model answer in one message (--env open-ended).")
        conversation, breaks = self._render(_USERS, _REPLIES), "its chat template breaks the prefix property"
        if _WORD in conversation and _REPLIES[0] not in conversation:
            reason = f"{breaks}: it rewrites earlier replies, as those of R1-type models do"
            remedy = "Or let the model answer in one message (--env open-ended), or not think (--model.thinking false)."
            raise self._refusal(reason, f"{_INDEPENDENT} {remedy}")
        reason = f"{conversation!r} does not go on from its own beginning {before + _USERS[0] + prompt!r}"
        raise self._refusal(f"{breaks}: {reason}", _INDEPENDENT)

    def _check_bos(self) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return
        if self._before[:2] == (bos, bos):
            raise self._refusal("its chat template writes BOS twice", "Remove one bos_token from the chat template.")
        if bos in self.tokenizer("")["input_ids"][:1] and self._before[:1] != (bos,):
            raise self._refusal("its chat template writes no BOS", "Start the chat template with {{ bos_token }}.")

    def _check_forgery(self) -> None:
        structure = {*self.stop_ids, *self._before, *self._to_reply, *self._to_next}
        for token_id in structure & set(self.tokenizer.all_special_ids):
            token = str(self.tokenizer.convert_ids_to_tokens(token_id))
            if token_id in self.encode(token):
                raise self._refusal(
                    f"its tokenizer turns the text {token!r} into a token of the chat's structure",
                    "Use a tokenizer that honours split_special_tokens.",
                )

    def _render(self, users: Sequence[str], replies: Sequence[str] = (), generation_prompt: bool = True) -> str:
        messages = [{"role": "system", "content": self._system}] if self._system else []
        for user, reply in zip_longest(users, replies):
            messages.append({"role": "user", "content": user})
            if reply is not None:
                messages.append({"role": "assistant", "content": reply})
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                chat_template=_FROZEN + self.tokenizer.get_chat_template(),
                **self._switches,
                date_string=_TODAY.strftime("%d %b %Y"),
                frozen_date=_DATE,
            )
        except Exception as error:  # a template is a program: it fails in any way
            said = " ".join(str(error).split()) or type(error).__name__
            remedy = "Remove system.md from the prompt style, or use another" if self._system else "Use another"
            raise self._refusal(f"its chat template fails: {said}", f"{remedy} chat template.") from error
        return str(rendered)

    def _structure(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refusal(self, reason: str, remedy: str) -> UserError:
        return UserError("model", getattr(self.tokenizer, "name_or_path", "?"), reason, remedy)
