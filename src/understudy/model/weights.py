"""The model's files on disk: complete, unchanged, and used without a network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from understudy.common.jsonio import JsonError, read_json, write_json
from understudy.model import small

#: What ``ChatterboxTTS.from_local`` reads. About 3.2 GB.
FILES = ("ve.safetensors", "t3_cfg.safetensors", "s3gen.safetensors", "tokenizer.json", "conds.pt")

REPOSITORY = "ResembleAI/chatterbox"

#: Written on the first good check; every later one compares with it.
MANIFEST = "manifest.json"


class WeightsError(RuntimeError):
    """The weights are missing, damaged or changed."""


def ensure(config: dict[str, Any]) -> dict[str, Any]:
    """Fetch the weights if that is allowed and needed, then check every file.

    Args:
        config: ``weights_dir``; ``source``: ``hub`` (download what is missing) or ``local``;
            ``revision`` of the hub's repository; ``sha256``: known digests by file name.

    Returns:
        The contract's ``weights`` object and ``changed``: something was downloaded or the
        manifest was written.

    Raises:
        WeightsError: names every bad file and what is wrong with it.
    """
    directory = Path(config["weights_dir"]).expanduser()
    missing = [name for name in FILES if not (directory / name).is_file()]
    downloaded = bool(missing) and config["source"] == "hub"
    if downloaded:
        _download(directory, config.get("revision"))
    known = dict(config.get("sha256") or {})
    manifest = directory / MANIFEST
    if manifest.is_file():
        try:
            known = read_json(manifest) | known
        except JsonError as error:
            raise WeightsError(
                f"{error}: it is no manifest; remove it to trust the files as they are"
            ) from None
    files = [_check(directory / name, known.get(name)) for name in FILES]
    bad = [f"{file['name']}: {file['detail']}" for file in files if not file["ok"]]
    if bad:
        raise WeightsError(f"{directory}: " + "; ".join(bad))
    digests = {file["name"]: file["sha256"] for file in files}
    if not manifest.is_file():
        write_json(manifest, digests)
        downloaded = True
    return {
        "dir": str(directory),
        "source": config["source"],
        "offline": not missing,
        "random": small.read_marker(directory) is not None,
        "files": files,
        "changed": downloaded,
    }


def shape_problems(directory: Path) -> list[str]:
    """Return what is missing or cut short of what a voice cannot be loaded without.

    Looks at names, sizes and headers only: a moment, where `ensure` reads everything.
    """
    needed = [directory / name for name in FILES if name != "conds.pt"]
    damage = {path: _damage(path) if path.is_file() else "missing" for path in needed}
    return [f"{path}: {what}" for path, what in damage.items() if what]


def _download(directory: Path, revision: str | None) -> None:
    """Bring the files from the hub; interrupted downloads are resumed by the library."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            REPOSITORY, revision=revision, allow_patterns=list(FILES), local_dir=directory
        )
    except Exception as error:  # the hub's library raises many kinds
        raise WeightsError(
            f"{directory}: download of {REPOSITORY} failed: {type(error).__name__}: {error}"
        ) from error


def _check(path: Path, expected: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": path.name,
        "bytes": None,
        "sha256": None,
        "ok": False,
        "detail": "missing",
    }
    if not path.is_file():
        return facts
    facts["bytes"] = path.stat().st_size
    damage = _damage(path)
    if damage:
        return facts | {"detail": damage}
    with path.open("rb") as file:
        facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and facts["sha256"] != expected:
        seen = facts["sha256"][:12]
        return facts | {
            "detail": f"sha256 is {seen}…, expected {expected[:12]}…: the file has changed"
        }
    return facts | {"ok": True, "detail": "as recorded" if expected else "recorded now"}


def _damage(path: Path) -> str | None:
    """Return what is wrong with the file's shape, or None.

    A safetensors file says in its header how long it is (8 bytes of header length, the
    header, then the data up to the largest offset), so a cut one is recognised at once.
    """
    size = path.stat().st_size
    if size == 0:
        return "empty"
    if path.suffix == ".json":
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            return f"not JSON: {error}"
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                return f"not a safetensors file, or cut short at {size} bytes"
            try:
                header = json.loads(file.read(length))
                ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                return "its safetensors header cannot be read"
        promised = 8 + length + max(ends, default=0)
        if size != promised:
            return (
                f"cut short: {size} bytes of {promised}"
                if size < promised
                else (f"{size} bytes where its header promises {promised}")
            )
    return None
