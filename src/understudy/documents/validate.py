"""Does a run directory keep to its schemas, and are its WAVs the ones it names?"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

from understudy.common.files import JSON_BYTES, WAV_BYTES, read_bytes, read_within
from understudy.common.jsonio import parse_json, read_json

#: The documents of a run directory: alone, or one per host. A calibration stands beside the runs.
DOCUMENT = re.compile(
    r"(?P<one>run|preflight|llm|identity|ratings|verdict)\.json"
    r"|(?P<each>install|bench|baseline|identity|calibration)-.+\.json"
)
WAV_FORMAT = (24000, 1, 2)

#: So many problems of a document are named.
MOST_PROBLEMS = 100

#: The ``<name>.schema.json`` files.
SCHEMAS = Path(__file__).parent / "schemas"


def schema_name(file_name: str) -> str | None:
    """Return the schema of a file: ``install-titan.json`` has ``install``; None without one."""
    match = DOCUMENT.fullmatch(file_name)
    return (match["one"] or match["each"]) if match else None


def load_schemas() -> dict[str, Draft202012Validator]:
    """Return a validator per schema, by its name (``install``)."""
    schemas: dict[str, Any] = {
        path.name.removesuffix(".schema.json"): read_json(path)
        for path in sorted(SCHEMAS.glob("*.schema.json"))
    }
    resources = [(schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()]
    registry: Registry[Any] = Registry().with_resources(resources)
    return {
        name: Draft202012Validator(schema, registry=registry) for name, schema in schemas.items()
    }


def validate_run(run_dir: Path) -> list[str]:
    """Check every document of a run directory, and every WAV that one of them names.

    A run that died half-way is valid if what it left is; run.json it always has.

    Args:
        run_dir: the run directory, or a link to it; or one document, such as a calibration.

    Returns:
        One sentence per problem, beginning with the file's name; none for a valid directory.

    Raises:
        OSError: there is no such path, or the directory cannot be listed.
    """
    validators = load_schemas()
    if not run_dir.exists():
        raise FileNotFoundError(f"{run_dir} does not exist. Next: ls {run_dir.parent}")
    run_dir = run_dir.resolve()
    problems: list[str] = []
    if run_dir.is_file():
        return _document_problems(run_dir, validators)[1]
    if not (run_dir / "run.json").is_file():
        problems.append(f"run.json: there is none in {run_dir}")
    for path in sorted(run_dir.glob("*.json")):
        document, found = _document_problems(path, validators)
        problems += found
        if isinstance(document, dict):
            if document.get("run_id") != run_dir.name:
                problems.append(f"{path.name}: run_id is not the directory's name, {run_dir.name}")
            found = list(itertools.islice(_wav_problems(run_dir, document), MOST_PROBLEMS))
            problems += [f"{path.name}: {what}" for what in found]
    return problems


def _document_problems(
    path: Path, validators: dict[str, Draft202012Validator]
) -> tuple[Any, list[str]]:
    """Return a document, None if it cannot be read, and where it leaves its schema."""
    name = schema_name(path.name)
    if name is None:
        return None, [f"{path.name}: not a file of a run directory"]
    try:
        document = parse_json(read_bytes(path, JSON_BYTES))
    except OSError as error:
        return None, [f"{path.name}: cannot be read: {error.strerror}"]
    except ValueError as error:
        return None, [f"{path.name}: not JSON: {error}"]
    found = validators[name].iter_errors(document)
    faults = sorted(itertools.islice(found, MOST_PROBLEMS), key=lambda e: e.json_path)
    leaves = [leaf for fault in faults for leaf in _leaves(fault)]
    problems = [f"{path.name}: {leaf.json_path}: {_shorten(leaf.message)}" for leaf in leaves]
    if len(faults) == MOST_PROBLEMS:
        problems.append(f"{path.name}: these are the first {MOST_PROBLEMS} problems")
    return document, problems


def _leaves(fault: ValidationError) -> Iterator[ValidationError]:
    """Yield what is wrong with a value that may also be null, instead of that it is neither."""
    inner = [cause for cause in fault.context or () if cause.schema != {"type": "null"}]
    if fault.validator != "anyOf" or not inner:
        yield fault
    for cause in inner if fault.validator == "anyOf" else ():
        yield from _leaves(cause)


def _shorten(message: str) -> str:
    """Cut the middle out of a message: it may quote a whole document."""
    return message if len(message) <= 240 else f"{message[:80]} … {message[-150:]}"


def _wav_problems(run_dir: Path, document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the WAVs of a bench or baseline document."""
    utterances = document.get("utterances")
    named: dict[str, Any] = {}
    for row in utterances if isinstance(utterances, list) else []:
        if isinstance(row, dict) and isinstance(row.get("wav"), str):
            named[row["wav"]] = row.get("wav_sha256")
    for name, expected in named.items():
        try:
            content = read_within(run_dir, name, WAV_BYTES)
        except FileNotFoundError:
            yield f"{name}: the file is missing"
            continue
        except OSError as error:
            yield f"{_shorten(name)}: {error.strerror}"
            continue
        if hashlib.sha256(content).hexdigest() != expected:
            yield f"{name}: its sha256 is not the recorded one"
            continue
        try:
            with wave.open(io.BytesIO(content)) as reader:
                found = reader.getframerate(), reader.getnchannels(), reader.getsampwidth()
        except (wave.Error, EOFError) as error:
            yield f"{name}: not a WAV: {error}"
            continue
        if found != WAV_FORMAT:
            yield f"{name}: {found[0]} Hz, {found[1]} channels, {8 * found[2]} bit"
