"""Templates of the pages, and the writing of a page."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

ENVIRONMENT = Environment(
    loader=PackageLoader("captum_ablate.evaluation.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
"""Every name and number in a template is escaped, unless it is one of our own pictures."""


def write(file: str | Path, template: str, **content: object) -> Path:
    """Write the page of a ``template`` with its ``content`` to ``file``, whose folder is made; return its path."""
    page = ENVIRONMENT.get_template(template).render(**content)
    (path := Path(file)).parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path
