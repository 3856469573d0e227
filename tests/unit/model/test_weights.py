"""The model's files: complete, unchanged, offline, and every fault named."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from understudy.model import small, weights


def tensors(data: bytes, **header: Any) -> bytes:
    """A safetensors file with one tensor."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, "w": entry} | header).encode()
    return len(text).to_bytes(8, "little") + text + data


CONTENT = {
    "ve.safetensors": tensors(b"voice encoder"),
    "t3_cfg.safetensors": tensors(b"T3" * 500),
    "s3gen.safetensors": tensors(b"S3Gen" * 300),
    "tokenizer.json": b'{"model": {"vocab": {"[START]": 0}}}',
    "conds.pt": b"PK\x03\x04 a default voice",
}
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.mkdir()
    for name, data in CONTENT.items():
        (path / name).write_bytes(data)
    return path


def ensure(directory: Path, **config: Any) -> dict[str, Any]:
    return weights.ensure({"weights_dir": str(directory), "source": "local", **config})


def refused(directory: Path, **config: Any) -> str:
    with pytest.raises(weights.WeightsError) as raised:
        ensure(directory, **config)
    return str(raised.value)


def test_the_first_use_writes_the_manifest(directory: Path) -> None:
    found = ensure(directory)
    assert json.loads((directory / "manifest.json").read_text()) == DIGESTS
    assert (found["changed"], found["offline"], found["random"]) == (True, True, False)
    assert (found["dir"], found["source"]) == (str(directory), "local")
    assert found["files"] == [
        {
            "name": name,
            "bytes": len(CONTENT[name]),
            "sha256": DIGESTS[name],
            "ok": True,
            "detail": "recorded now",
        }
        for name in weights.FILES
    ]


def test_the_second_use_changes_nothing(directory: Path) -> None:
    ensure(directory)
    before = (directory / "manifest.json").stat().st_mtime_ns
    found = ensure(directory)
    assert found["changed"] is False
    assert {file["detail"] for file in found["files"]} == {"as recorded"}
    assert (directory / "manifest.json").stat().st_mtime_ns == before


def test_random_weights_say_so(directory: Path) -> None:
    (directory / small.MARKER).write_text(json.dumps({"architecture": {"t3_layers": 2}}))
    assert ensure(directory)["random"] is True


def test_missing_files_are_all_named(directory: Path) -> None:
    (directory / "ve.safetensors").unlink()
    (directory / "conds.pt").unlink()
    message = refused(directory)
    assert message == f"{directory}: ve.safetensors: missing; conds.pt: missing"
    assert not (directory / "manifest.json").exists()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").count("missing") == len(weights.FILES)


GOOD = CONTENT["t3_cfg.safetensors"]
HEADER = int.from_bytes(GOOD[:8], "little")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "empty"),
        (GOOD[:5], "cut short at 5 bytes"),
        (GOOD[:40], "cut short at 40 bytes"),
        (GOOD[:-1], f"cut short: {len(GOOD) - 1} bytes of {len(GOOD)}"),
        (GOOD[: 8 + HEADER], f"cut short: {8 + HEADER} bytes of {len(GOOD)}"),
        (GOOD + b"x", f"{len(GOOD) + 1} bytes where its header promises {len(GOOD)}"),
        (b"<!DOCTYPE html><html>not found</html>", "not a safetensors file"),
        ((4).to_bytes(8, "little") + b"junk", "header cannot be read"),
        ((4).to_bytes(8, "little") + b"[{}]", "header cannot be read"),
        ((4).to_bytes(8, "little") + b"\xff\xff\xff\xff", "header cannot be read"),
        (tensors(b"", w={"data_offsets": [0]}), "header cannot be read"),
        (tensors(b"", w={"data_offsets": ["a", "b"]}), "header cannot be read"),
        (tensors(b"", w=None), "header cannot be read"),
    ],
)
def test_a_damaged_weight_file_is_named_with_what_is_wrong(
    directory: Path, data: bytes, seen: str
) -> None:
    (directory / "t3_cfg.safetensors").write_bytes(data)
    message = refused(directory)
    assert message.startswith(f"{directory}: t3_cfg.safetensors: ")
    assert seen in message
    assert ";" not in message  # and no other file


@pytest.mark.parametrize("data", [b'{"model": ', b"\xff\xfe\x00", b"<html>"])
def test_a_tokenizer_that_is_not_json(directory: Path, data: bytes) -> None:
    (directory / "tokenizer.json").write_bytes(data)
    assert "tokenizer.json: not JSON: " in refused(directory)


def test_a_file_that_changed_after_the_first_use(directory: Path) -> None:
    ensure(directory)
    changed = tensors(b"voice encodeR")
    (directory / "ve.safetensors").write_bytes(changed)
    assert refused(directory) == (
        f"{directory}: ve.safetensors: sha256 is {hashlib.sha256(changed).hexdigest()[:12]}…, "
        f"expected {DIGESTS['ve.safetensors'][:12]}…: the file has changed"
    )
    assert json.loads((directory / "manifest.json").read_text()) == DIGESTS


def test_known_digests_hold_from_the_first_use(directory: Path) -> None:
    found = ensure(directory, sha256={"ve.safetensors": DIGESTS["ve.safetensors"]})
    details = {file["name"]: file["detail"] for file in found["files"]}
    assert details["ve.safetensors"] == "as recorded"
    assert details["conds.pt"] == "recorded now"


def test_other_files_than_the_known_ones_are_never_trusted(directory: Path) -> None:
    assert "expected 000000000000…" in refused(directory, sha256={"conds.pt": "0" * 64})
    assert not (directory / "manifest.json").exists()
    ensure(directory)
    assert "expected 000000000000…" in refused(directory, sha256={"conds.pt": "0" * 64})


@pytest.mark.parametrize("text", ['{"ve.saf', "[]", "null"])
def test_a_broken_manifest_is_not_passed_over(directory: Path, text: str) -> None:
    (directory / "manifest.json").write_text(text)
    message = refused(directory)
    assert str(directory / "manifest.json") in message
    assert "remove it" in message
    assert (directory / "manifest.json").read_text() == text


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The hub's library, which brings the files; gives the calls."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository, **options})
        directory = Path(options["local_dir"])
        directory.mkdir(parents=True, exist_ok=True)
        for name in options["allow_patterns"]:
            (directory / name).write_bytes(CONTENT[name])
        return str(directory)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_what_is_missing_comes_from_the_hub(tmp_path: Path, hub: list[dict[str, Any]]) -> None:
    directory = tmp_path / "new"
    found = ensure(directory, source="hub", revision="abc123")
    assert hub == [
        {
            "repository": "ResembleAI/chatterbox",
            "revision": "abc123",
            "allow_patterns": list(weights.FILES),
            "local_dir": directory,
        }
    ]
    assert (found["changed"], found["offline"], found["source"]) == (True, False, "hub")


def test_complete_weights_ask_no_hub(directory: Path, hub: list[dict[str, Any]]) -> None:
    ensure(directory)
    found = ensure(directory, source="hub")
    assert (hub, found["changed"], found["offline"]) == ([], False, True)


def test_local_weights_ask_no_hub(tmp_path: Path, hub: list[dict[str, Any]]) -> None:
    refused(tmp_path / "none")
    assert hub == []


def test_a_download_that_fails(
    tmp_path: Path, hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", fail)
    assert refused(tmp_path / "new", source="hub") == (
        f"{tmp_path / 'new'}: download of ResembleAI/chatterbox failed: "
        "ConnectionError: no route to the hub"
    )


def test_a_download_is_checked_like_everything_else(
    tmp_path: Path, hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONTENT, "s3gen.safetensors", CONTENT["s3gen.safetensors"][:-7])
    assert "s3gen.safetensors: cut short" in refused(tmp_path / "new", source="hub")
