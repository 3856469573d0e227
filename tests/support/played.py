"""What a play left, for tests of the rehearsal and of the lab."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Played:
    """What a play left."""

    status: int
    output: str
    reports: Path

    def document(self, name: str) -> dict:
        return json.loads((self.reports / "latest" / name).read_text())

    @property
    def verdict(self) -> dict:
        return self.document("verdict.json")

    @property
    def text(self) -> str:
        """The output with every run of white space as one space, as Ansible folds lines."""
        return re.sub(r"\s+", " ", self.output)

    def recap(self, host: str) -> dict[str, int]:
        row = re.findall(rf"^{host}\s+: (.*)$", self.output, re.MULTILINE)[-1]
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)}
