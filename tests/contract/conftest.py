"""Which server is held to the contract; without --server nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PCM_BYTES_PER_SECOND = 2 * 24_000


@dataclass
class Primary:
    """A server that claims to speak as the primary does."""

    url: str
    path: str
    token: str | None
    reference: str
    timeout_s: float

    def post(self, body: Any = None, *, token: str | None = "its own", **options: Any):
        headers = {"X-Internal-Token": self.token if token == "its own" else token}
        headers = {name: value for name, value in headers.items() if value}
        headers |= options.pop("headers", {})
        if body is not None:
            options["json"] = body
        return httpx.post(
            self.url + self.path,
            headers=headers,
            timeout=self.timeout_s,
            trust_env=False,
            **options,
        )

    def body(self, text: str, **changes: Any) -> dict[str, Any]:
        return {
            "text": text,
            "reference_audio": self.reference,
            "exaggeration": 0.3,
            "cfg_weight": 0.3,
            "temperature": 0.6,
            **changes,
        }

    def get(self, path: str):
        return httpx.get(self.url + path, timeout=self.timeout_s, trust_env=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract", "the primary's HTTP contract")
    group.addoption("--server", help="scheme, host and port, such as http://panda:8772")
    group.addoption("--path", default="/synthesize", help="of the POST")
    group.addoption("--token-file", type=Path)
    group.addoption("--reference", help="name of a voice file on the server")
    group.addoption("--patience", type=float, default=120.0, help="for one reply, in seconds")


@pytest.fixture(scope="session")
def primary(pytestconfig: pytest.Config) -> Primary:
    option = pytestconfig.getoption
    if not option("--server"):
        pytest.skip("no --server")
    if not option("--reference"):
        pytest.exit("--reference is missing: the name of a voice file on the server", 2)
    file = option("--token-file")
    return Primary(
        option("--server").rstrip("/"),
        option("--path"),
        file.read_text().strip() if file else None,
        option("--reference"),
        option("--patience"),
    )
