#!/usr/bin/env python
"""A picture of a page on disk, by a headless Chromium: for the documentation, and to look at what was changed.

python scripts/dev/screenshot.py runs/RUN/report.html report.png --show '#figure-accuracy'
python scripts/dev/screenshot.py 'traces.html#sort=-progress&trace=traces%3A3' trace.png --dark --show '#shown'
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from backtrack_mrt.errors import UserError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="HTML file, also with #…")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--show", metavar="SELECTOR", default="body", help="what is scrolled to")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--press", nargs="*", default=[], metavar="KEY", help="keys to press first, such as c or t")
    args = parser.parse_args()
    file, _, place = args.page.partition("#")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise UserError("chromium", None, "it is not installed", "`make test-browser` installs it where it can.")
    if not Path(file).is_file():
        raise UserError("PAGE", file, "no such file", "Name a report.html.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        scheme = "dark" if args.dark else "light"
        page = browser.new_page(viewport={"width": args.width, "height": args.height}, color_scheme=scheme)
        page.goto(f"{Path(file).resolve().as_uri()}#{place}")
        page.wait_for_selector("#shown article" if "trace=" in place else "#rows tr")
        for key in args.press:
            page.keyboard.press(key)
            page.wait_for_timeout(500)
        page.locator(args.show).first.evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(300)
        page.screenshot(path=args.out)
        browser.close()


if __name__ == "__main__":
    run_main(main)
