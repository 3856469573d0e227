"""The filter `url_host`: a host's name or address as it stands in a URL."""

from __future__ import annotations

from collections.abc import Callable

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: url_host
short_description: A host's name or address as it stands in a URL
description: An IPv6 address is put into brackets, C(fd00::7) becomes C([fd00::7]).
options:
  _input:
    description: The name or address.
    type: str
    required: true
"""

EXAMPLES = r"""
url: http://{{ ansible_host | default(inventory_hostname) | url_host }}:8772
"""

RETURN = r"""
_value:
  description: The same, with brackets where it needs them.
  type: str
"""


def url_host(host: object) -> str:
    """Call the package's function, which is the control node's."""
    try:
        from understudy.common import urls
    except ImportError as error:
        raise AnsibleFilterError(
            f"control node: {error}. Next: make control, then . .venv/bin/activate"
        ) from error
    return urls.url_host(str(host))


class FilterModule:
    """Ansible's list of the filters of this file."""

    def filters(self) -> dict[str, Callable[[object], str]]:
        """Return the filters by name."""
        return {"url_host": url_host}
