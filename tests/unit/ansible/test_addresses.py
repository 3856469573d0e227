"""The inventory makes a URL of whatever address a host has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from played import ROOT, play

PLAY = """
- name: Show the addresses
  hosts: standby
  gather_facts: false
  vars_files: [{defaults}]
  tasks:
    - name: Read the addresses
      ansible.builtin.set_fact:
        addresses: "{{{{ [understudy_primary.url, tts_server_url, tts_server_bind] }}}}"
    - name: Show the addresses
      ansible.builtin.copy:
        content: "{{{{ addresses | to_json }}}}"
        dest: {shown}
        mode: "0600"
      delegate_to: localhost
"""


@pytest.mark.parametrize(
    ("host", "expected", "bind"),
    [
        ({}, ["http://panda:8772", "http://titan:8772"], "0.0.0.0"),
        ({"ansible_host": "10.0.0.7"}, ["http://10.0.0.7:8772"] * 2, "0.0.0.0"),
        ({"ansible_host": "fd00::7"}, ["http://[fd00::7]:8772"] * 2, "::"),
        ({"ansible_host": "fe80::1%eth0"}, ["http://[fe80::1%eth0]:8772"] * 2, "::"),
    ],
)
def test_urls_of_hosts(
    host: dict[str, str], expected: list[str], bind: str, tmp_path: Path
) -> None:
    inventory, shown = tmp_path / "inventory", tmp_path / "shown.json"
    inventory.mkdir()
    (inventory / "group_vars").symlink_to(ROOT / "inventory/group_vars")
    groups = {"standby": {"hosts": {"titan": host}}, "primary": {"hosts": {"panda": host}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    defaults = ROOT / "roles/tts_server/defaults/main.yml"
    (tmp_path / "play.yml").write_text(PLAY.format(defaults=defaults, shown=shown))
    played = play(["-i", str(inventory / "hosts.yml")], tmp_path, str(tmp_path / "play.yml"))
    assert played.status == 0, played.output
    assert json.loads(shown.read_text()) == [*expected, bind]
