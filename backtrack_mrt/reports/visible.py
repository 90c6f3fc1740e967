"""Text that cannot steer a page: marks that are not seen, or that turn the direction of writing, are shown by name."""

from __future__ import annotations

import re

# Control characters but tab and line feed, soft hyphen, zero-width and direction marks, line and paragraph separators,
# byte order mark, annotations, halves of surrogate pairs, tags. Their names are what a reader can look up.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with such marks as ⟨U+202E⟩."""
    return _UNSEEN.sub(lambda mark: f"⟨U+{ord(mark[0]):04X}⟩", text)
