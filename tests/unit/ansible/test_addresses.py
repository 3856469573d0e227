"""The inventory makes a URL of whatever address a host has."""

from __future__ import annotations

import json
from pathlib import Path

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
        addresses: "{{{{ [tts_server_url, tts_server_bind, understudy_primary.url] }}}}"
    - name: Show the addresses
      ansible.builtin.copy:
        content: "{{{{ groups.standby | map('extract', hostvars, 'addresses') | to_json }}}}"
        dest: {shown}
        mode: "0600"
      delegate_to: localhost
      run_once: true
"""


def test_urls_of_hosts(tmp_path: Path) -> None:
    inventory, shown = tmp_path / "inventory", tmp_path / "shown.json"
    inventory.mkdir()
    (inventory / "group_vars").symlink_to(ROOT / "inventory/group_vars")
    groups = {
        "standby": {
            "hosts": {
                "titan": {},
                "four": {"ansible_host": "10.0.0.7"},
                "six": {"ansible_host": "fd00::7"},
                "link": {"ansible_host": "fe80::1%eth0"},
            }
        },
        "primary": {"hosts": {"panda": {"ansible_host": "fd00::8"}}},
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    defaults = ROOT / "roles/tts_server/defaults/main.yml"
    (tmp_path / "play.yml").write_text(PLAY.format(defaults=defaults, shown=shown))
    played = play(["-i", str(inventory / "hosts.yml")], tmp_path, str(tmp_path / "play.yml"))
    assert played.status == 0, played.output
    primary = "http://[fd00::8]:8772"
    assert sorted(json.loads(shown.read_text())) == sorted(
        [
            ["http://titan:8772", "0.0.0.0", primary],
            ["http://10.0.0.7:8772", "0.0.0.0", primary],
            ["http://[fd00::7]:8772", "::", primary],
            ["http://[fe80::1%eth0]:8772", "::", primary],
        ]
    )
