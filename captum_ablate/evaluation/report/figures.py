"""Figures as SVG inside a page: their colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

from captum_ablate.evaluation import plots
from captum_ablate.inputs.warnings import warn

SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "captum_ablate"}
"""Text stays text, and equal figures are equal texts."""

_COLOURS = {colour: f"var(--c{k})" for k, colour in enumerate(plots.COLOURS)} | {
    plots.GREY: "var(--grey)",
    plots.DARK_GREY: "var(--dark-grey)",
    plots.BAND: "var(--band)",
    plots.BLACK: "currentColor",
    "#ffffff": "var(--paper)",
}
_FONTS = re.compile(r"font-family: [^;]*|(?<=px )'DejaVu Sans'[^;]*")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_LINK = "{http://www.w3.org/1999/xlink}href"
_NOT_OF_XML = re.compile("[\ufffe\uffff]")


@dataclass(frozen=True)
class Picture:
    """Figures of one thing, the first for wide windows and the last for narrow ones; without any, why there are none.

    ``about`` says what it shows.
    """

    about: str
    figures: tuple[Markup, ...] = ()

    @classmethod
    def of(cls, name: str, about: str, *draw: Callable[[], Figure]) -> Picture:
        """Return the picture that ``draw`` returns, of several widths; if that fails, the error, with a warning.

        ``name`` stands before the names inside the figures, which are different in one page.
        """
        try:
            with style.context("default"), mpl.rc_context(SETTINGS), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts write the text
                return cls(about, tuple(as_svg(one(), f"{name}-{k}", about) for k, one in enumerate(draw)))
        except Exception as error:  # the results took long, and are right without the picture
            reason = f"the picture of the {name} could not be drawn: {type(error).__name__}: {error}"
            warn(f"{reason}; the report has the tables without it")
            return cls(reason)


def as_svg(figure: Figure, name: str, about: str) -> Markup:
    """Return the element of a figure: described by ``about``, of any width, in the colours of the page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(_NOT_OF_XML.sub("\ufffd", buffer.getvalue().decode()))
    for child in list(root):
        if child.tag.endswith("metadata") or child.find("{*}style") is not None:
            root.remove(child)
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
        for key, value in list(element.attrib.items()):
            element.attrib.pop(key)
            element.set("href" if key == _LINK else key, _attribute(key, value, name))
        element.tail = None
        if element.tag != "text":
            element.text = None
    size = root.get("viewBox", "")
    root.attrib = {"viewBox": size, "role": "img", "aria-label": about}
    # All in it is escaped by ElementTree: names are text, or were drawn as paths.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attribute(key: str, value: str, name: str) -> str:
    """Return the value of an attribute: ids in the figure's own name, its lengths with two decimals."""
    if key == "id":
        return f"{name}-{value}"
    if key == _LINK:
        return value.replace("#", f"#{name}-")
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = _FONTS.sub(lambda found: ("font-family: " if ":" in found[0] else "") + "Verdana, sans-serif", value)
        return re.sub("#[0-9a-f]{6}", lambda found: _COLOURS.get(found[0], found[0]), value)
    if key in ("d", "x", "y", "width", "height"):
        return _DECIMALS.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), " ".join(value.split()))
    return value
