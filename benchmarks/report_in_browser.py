"""Look at a report in a headless Chromium (``python -m benchmarks.report_in_browser FILE --out FOLDER``).

At 1280 and 390 pixels, light and dark, it saves a picture of the whole page, and counts what must not be: messages on
the console, requests to anything but the file, text that is cut without a way to scroll to it, a page that is wider
than the window, links that lead nowhere, and what a keyboard cannot reach. It exits with 1 if there is any.

It needs playwright (``pip install playwright``) and a Chromium, ``--chromium`` says where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")

CUT = """() => [...document.querySelectorAll('main *, header *')].filter(one => {
  if (one.closest('.unseen, svg') || one.scrollWidth <= one.clientWidth + 1) return false;
  const style = getComputedStyle(one);
  if (style.display === 'inline') return false;
  if (['auto', 'scroll'].includes(style.overflowX)) return one.tabIndex < 0;
  return style.overflowX === 'hidden';
}).map(one => one.outerHTML.slice(0, 120))"""
"""Elements that hide part of their content, and cannot be scrolled with the keyboard."""

WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
DEAD_LINKS = """() => [...document.querySelectorAll('a[href^="#"]')].filter(
  one => !document.getElementById(one.hash.slice(1))).map(one => one.hash)"""
TWICE = """() => { const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
  return ids.filter((one, k) => ids.indexOf(one) !== k); }"""
STOPS = """() => [...document.querySelectorAll('a[href], [tabindex="0"], summary')].filter(
  one => one.checkVisibility()).length"""
FOCUSED = "() => document.activeElement.outerHTML.slice(0, 200)"
VISIBLE_FOCUS = "() => getComputedStyle(document.activeElement).outlineStyle !== 'none'"
SMALL_TEXT = """() => [...document.querySelectorAll('figure svg text')].filter(one => one.checkVisibility()).map(
  one => one.getBoundingClientRect().height).filter(height => height > 0 && height < 9).length"""


def look(page: Any, file: Path, picture: Path) -> list[str]:
    """Open ``file``, save a ``picture`` of it, and return what is wrong."""
    found: list[str] = []
    page.on("console", lambda message: found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda one: _note_request(found, one.url, file))
    page.goto(file.resolve().as_uri())
    found += [f"cut: {one}" for one in page.evaluate(CUT)]
    if (wider := page.evaluate(WIDER)) > 0:
        found.append(f"the page is {wider} px wider than the window")
    found += [f"dead link: {one}" for one in page.evaluate(DEAD_LINKS)]
    found += [f"id twice: {one}" for one in page.evaluate(TWICE)]
    if small := page.evaluate(SMALL_TEXT):
        found.append(f"{small} texts in figures are less than 9 px high")
    found += walk(page)
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    page.screenshot(path=str(picture), full_page=True)
    return found


def walk(page: Any) -> list[str]:
    """Press Tab through the page, and return what is not reached, or shows no focus."""
    stops, found, seen = page.evaluate(STOPS), [], 0
    for _ in range(stops):
        page.keyboard.press("Tab")
        seen += "<body" not in page.evaluate(FOCUSED)[:5]
        if not page.evaluate(VISIBLE_FOCUS):
            found.append(f"no visible focus: {page.evaluate(FOCUSED)}")
    return found if seen == stops else [*found, f"Tab reaches {seen} of {stops} links and regions"]


def _note_request(found: list[str], address: str, file: Path) -> None:
    if address != file.resolve().as_uri() and not address.startswith("data:"):
        found.append(f"request: {address}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at a report at both widths and in both schemes; return 1 if anything is wrong."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="reports")
    parser.add_argument("--out", type=Path, default=Path("report-pictures"), help="folder of the pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for file in options.files:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                    found = look(page, file, options.out / f"{file.stem}-{width}-{scheme}.png")
                    height = page.evaluate("() => document.documentElement.scrollHeight")
                    print(f"{file.name}, {width} px, {scheme}: {height} px high, {len(found)} faults")
                    print("".join(f"  {one}\n" for one in found), end="")
                    wrong += len(found)
                    page.close()
        browser.close()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
