"""What is in a report's page, without a browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from backtrack_mrt.reports.build import report_traces
from backtrack_mrt.runs.records import as_record
from backtrack_mrt.types import Scored


class Page(HTMLParser):
    """Tags with their attributes, and the texts of scripts and styles, as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.raw.append(data)

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def viewer(tmp_path: Path, *scored: Scored) -> str:
    lines = [json.dumps(as_record(s)) + "\n" for s in scored]  # in ASCII, as other programs write halves of surrogates
    (tmp_path / "traces.jsonl").write_text("".join(lines))
    return report_traces([tmp_path / "traces.jsonl"], tmp_path / "traces.html").read_text()


def unpacked(page: str, name: str) -> Any:
    letters = re.search(rf'id="{name}">([^<]*)<', page)
    assert letters
    return json.loads(gzip.decompress(base64.b64decode(letters[1])))
