"""Small chat templates, each with what published ones of hybrid thinkers do."""

from __future__ import annotations

_SAID = "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
_ENDS = "{% if add_generation_prompt %}<|im_start|>assistant\n"
_BODY = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|im_start|>assistant\n{REPLY}<|im_end|>\n"
    "{% else %}" + _SAID + "{% endif %}{% endfor %}" + _ENDS + "{PROMPT}{% endif %}"
)
_CUT = "{{ message['content'].split('</think>')[-1].lstrip() }}"
_LAST = "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}"  # behind the last question a thought is always shown
_OFF = "enable_thinking is defined and not enable_thinking"


def _template(reply: str, prompt: str, first: str = "") -> str:
    return first + _BODY.replace("{REPLY}", reply).replace("{PROMPT}", prompt)


HYBRIDS = {
    # off: an empty thought, which earlier replies lack; on: the model opens it
    "qwen3": _template(_LAST + _CUT, "{% if " + _OFF + " %}<think>\n\n</think>\n\n{% endif %}"),
    # the same, but on: the template opens it
    "qwen3.5": _template(_LAST + _CUT, "<think>\n{% if " + _OFF + " %}{{ '\\n</think>\\n\\n' }}{% endif %}"),
    # the mode stands in the system message; off: every reply has an empty thought
    "smollm3": _template(
        "{% if " + _OFF + " %}<think>\n\n</think>\n{% endif %}{{ message['content'].lstrip('\n') }}",
        "{% if " + _OFF + " %}<think>\n\n</think>\n{% endif %}",
        "<|im_start|>system\nReasoning Mode: {{ '/no_think' if " + _OFF + " else '/think' }}, "
        "{{ strftime_now('%d %B %Y') }}<|im_end|>\n",
    ),
    # no switch: the model opens a thought as it likes; earlier ones are cut out unless told to be kept
    "lfm2.5": _template(
        "{% if keep_past_thinking | default(false) or loop.last %}{{ message['content'] }}{% else %}"
        + _CUT
        + "{% endif %}",
        "",
    ),
    # the same, but the template opens it
    "lfm2.5 opened": _template(
        "{% if keep_past_thinking | default(false) or loop.last %}{{ message['content'] }}{% else %}"
        + _CUT
        + "{% endif %}",
        "<think>",
    ),
    # off: an empty thought in every reply; on: opened, and earlier ones are cut unless told not to be
    "nemotron-3": _template(
        "{% set said = message['content'] %}{% if '</think>' not in said %}<think></think>{{ said }}"
        "{% elif truncate_history_thinking | default(true) and not loop.last %}<think></think>" + _CUT + "{% else %}"
        "{{ said }}{% endif %}",
        "{% if " + _OFF + " %}<think></think>{% else %}<think>\n{% endif %}",
    ),
    # another word for the switch; off: the thought is closed without having been opened
    "deepseek-v3.1": _template(
        "</think>" + _CUT, "{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"
    ),
    # opened whatever is said, and cut out of earlier replies: R1 on a chat of the same form
    "always": _template(_CUT, "<think>\n"),
}
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")
