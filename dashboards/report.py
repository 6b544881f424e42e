"""The run report: one HTML page that needs nothing but itself.

No script, font, picture or address outside the page: the pictures are inline SVG, drawn beforehand,
and a content security policy forbids the rest even to a text that would get past the escaping.
"""

from __future__ import annotations

from dashboards import sections
from dashboards.format import one_line
from dashboards.markup import Html, join, tag
from dashboards.page import page
from dashboards.summary import Summary, check_format, facts, headline


def render_report(summary: Summary) -> str:
    """Return the report of a run as one self-contained HTML page.

    The same summary gives the same page, byte for byte. Parts that were not run are left out, with
    one line that says why.

    Raises:
        ValueError: the summary has a newer format than this version reads.
    """
    check_format(summary)
    name = one_line(summary.get("name", "run"))
    parts = [
        (anchor, heading, make(summary))
        for anchor, heading, make in sections.SECTIONS
        # Only a re-distillation has a model to be compared with.
        if anchor != "change" or summary.get("change")
    ]
    return page(
        f"{name}: sparsedistill report",
        "report.css",
        _top(summary, name),
        tag("nav", *(tag("a", heading, href=f"#{anchor}") for anchor, heading, _ in parts)),
        tag(
            "main",
            *(
                tag("section", tag("h2", heading), content, id=anchor)
                for anchor, heading, content in parts
            ),
        ),
        tag("footer", f"Written by sparsedistill {one_line(summary.get('tool_version', ''))}."),
    )


def _top(summary: Summary, name: str) -> Html:
    made = one_line(summary.get("created") or "").replace("T", " ").removesuffix("Z")
    tiles = [
        tag(
            "div",
            tag("dt", figure),
            tag("dd", tag("b", value), tag("span", remark) if remark else None),
        )
        for figure, value, remark in facts(summary)
    ]
    return tag(
        "header",
        tag("p", join([name, f"{made[:16]} UTC" if made else None], between=" · "), class_="name"),
        tag("h1", headline(summary)),
        tag("dl", *tiles, class_="tiles") if tiles else None,
    )
