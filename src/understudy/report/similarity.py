"""The report's section about the similarity check: identity.json as a reader sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.report.doc import Doc

#: result -> tone, sign, headline.
RESULTS = {
    "passed": ("good", "tick", "The same voice, as far as was measured"),
    "diverged": ("stop", "cross", "Not the same voice"),
    "uncalibrated": ("wait", "ring", "Measured, and not judged"),
}
UNKNOWN = ("none", "ring", "Not compared")


def view(doc: Doc) -> dict[str, Any]:
    """Return what the template shows.

    Args:
        doc: identity.json; anything may be missing from it or be of another type.

    Returns:
        ``tone``, ``sign``, ``title``; ``measures``: per name its label and unit and, for the
        full band and for the telephone, its row; ``hosts``: the two, the standby first;
        ``differing`` and ``alike``: the facts of the comparison, those first that differ or are
        not known of one host.
    """
    tone, sign, title = RESULTS.get(str(doc["result"]()), UNKNOWN)
    measures: dict[str, dict[str, Doc]] = {}
    for row in doc["measures"]:
        name = str(row["name"]()).partition(".")[2]
        measures.setdefault(name, {})[str(row["band"]())] = row
    facts = list(doc["facts"]["rows"])
    return {
        "doc": doc,
        "tone": tone,
        "sign": sign,
        "title": title,
        "measures": [
            (next(iter(bands.values())), [bands.get(band) for band in ("full", "telephone")])
            for bands in measures.values()
        ],
        "hosts": [str(doc[key]()) for key in ("host", "primary") if doc[key]()],
        "differing": [row for row in facts if row["differs"]() is not False],
        "alike": [row for row in facts if row["differs"]() is False],
    }
