"""The Jinja2 environment of every page."""

from __future__ import annotations

import jinja2


def environment(package: str) -> jinja2.Environment:
    """Return an environment that loads the templates of a package.

    Values are escaped, and an undefined name is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
