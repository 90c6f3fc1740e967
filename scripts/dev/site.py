"""Hooks of the documentation site (mkdocs.yml).

On the code host a document links to other documents and to files of the repository by their paths. The site holds the
documents of `docs/` and those of `PAGES`; each further file or folder that a document links to becomes a page of its
own, so that the same links work in both places, without a network. A link to nothing is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # documents of the repository's root, and what they are called on the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the root, and a page for everything else that is linked to."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    texts = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for place, text in texts.items():
        for part in _CODE.split(text)[::2]:
            for target in _LINK.findall(part):
                linked = _linked(place, target)
                if _place(linked) not in files.src_uris:
                    files.append(File.generated(config, _place(linked), content=_source_page(linked)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    place = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        return os.path.relpath(_place(_linked(place, match[1])), PurePosixPath(place).parent)

    if place.startswith("repository/"):
        return markdown
    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def _linked(place: str, target: str) -> str:
    """The path in the repository that `target` means in the document at `place` of the site."""
    roots = {page: source for source, page in PAGES.items()}
    source = roots.get(place, f"docs/{place}")
    path = os.path.normpath(PurePosixPath(source).parent / target)
    if path.startswith("..") or not (ROOT / path).exists():
        raise PluginError(f"{source}: the link to {target} leads nowhere")
    return path


def _place(path: str) -> str:
    """Where the site has the repository's file or folder `path`."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}.md")


def _source_page(path: str) -> str:
    whole = ROOT / path
    if whole.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in whole.iterdir() if entry.name[0] not in "._")
        return f"# {path}/\n\n" + "".join(f"- `{name}`\n" for name in names)
    fence = "`" * 6
    return f"# {path}\n\n{fence}{whole.suffix[1:]}\n{whole.read_text(encoding='utf-8')}\n{fence}\n"
