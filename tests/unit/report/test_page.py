"""The report is made of anything that can lie in a run directory, and says what it is."""

from __future__ import annotations

import base64
import copy
import html.parser
import io
import json
import random
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_factory
import soundfile

from understudy.report import charts, doc
from understudy.report import page as report
from understudy.verdict import evidence, rules

Json = Any

STANDBY, PRIMARY = "spark", "tower"
VERDICT = "awaiting_ab_scores"
ERROR = "nvrtc: error: invalid value for --gpu-architecture (-arch)"
DOCUMENTS = (
    "run.json",
    "preflight.json",
    "llm.json",
    f"install-{STANDBY}.json",
    f"bench-{STANDBY}.json",
    f"baseline-{PRIMARY}.json",
    "ratings.json",
    "verdict.json",
)


def _wav(path: Path, duration_s: float, hz: float) -> None:
    time = np.arange(int(24_000 * duration_s)) / 24_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * time), 24_000, "PCM_16")


def _edit(run_dir: Path, name: str) -> Json:
    return json.loads((run_dir / name).read_text(encoding="utf-8"))


def _verdict() -> Json:
    return {
        "schema_version": 1,
        "run_id": "20261122-031500Z",
        "computed_at": "2026-11-22T03:19:00Z",
        "verdict": VERDICT,
        "ok": True,
        "reasons": ["10 of 10 utterances were spoken on spark and on tower; no scores yet."],
        "criteria": [
            {"id": number, "name": name, "status": status, "evidence": evidence}
            for number, (name, status, evidence) in enumerate(
                [
                    ("chatterbox-tts is installed on the standby", "met", "Imports on spark."),
                    ("The STFT problem does not occur, or is patched", "met", "Patched."),
                    ("10/10 cloned-voice utterances synthesise", "met", "10 of 10."),
                    ("The baseline exists for the same utterances", "met", "10 of 10."),
                    ("The A/B similarity scores are in", "not_yet", "No sheet was given."),
                    ("The verdict is one of the three", "not_yet", "Waits for scores."),
                    ("Drift of the LLM at most 1.2", "met", "1.016 on spark."),
                    ("The research document is written", "not_yet", "Not asked for."),
                    ("The pull request is open", "not_met", "No repository is named."),
                ],
                1,
            )
        ],
        "questions": [
            {"id": number, "question": question, "answer": answer, "evidence": "Seen in this run."}
            for number, (question, answer) in enumerate(
                [
                    (
                        "Does `pip install chatterbox-tts` resolve on aarch64?",
                        "Not with its own pins: torch is overridden. No native builds.",
                    ),
                    (
                        "Does S3Gen's STFT path trigger the nvrtc error?",
                        "Yes, and the patch fixes it.",
                    ),
                    ("What is the memory footprint on the standby?", "3.72 GB allocated."),
                    ("Is `resemble-perth` a hard dependency?", "Yes; it installs."),
                    ("RTF on the standby against the primary?", "0.52 against 0.41."),
                    ("Is it safe to run in parallel with Gemma?", None),
                ],
                1,
            )
        ],
        "checks": [
            {
                "name": f"drift.{STANDBY}",
                "ok": True,
                "value": 193 / 190,
                "threshold": 1.2,
                "unit": "x",
                "detail": "after p50 / before p50 on spark",
            },
            {
                "name": "identity_difference",
                "ok": None,
                "value": None,
                "threshold": 0.5,
                "unit": "points",
                "detail": "No scores.",
            },
        ],
        "ratings": {"n": 10, "passes": 1, "means": {}, "differences": {STANDBY: -1.0}},
        "evidence": _weighed(),
        "warnings": ["Two bad voices are not a validated one."],
        "human": {"state": "contradicted", "why": ["The similarity check says that they diverge."]},
        "timing": {
            "total_s": 242.0,
            "busy_s": 168.0,
            "split": {
                "install": 61.4,
                "model_load": 38.2,
                "synthesis": 104.1,
                "llm_probe": 25.7,
                "comparison": 5.1,
                "other": 12.6,
            },
            "ratio": 1.055,
        },
        "hosts": {"standby": [STANDBY], "primary": [PRIMARY], "llm": [STANDBY]},
        "rehearsal": True,
        "notes": [],
        "files": [],
    }


def _weighed() -> Json:
    text = json.dumps(run_factory.listened([4, 5, 3, 4, 4] * 2, [5] * 10))
    text = text.replace(run_factory.STANDBY, STANDBY).replace(run_factory.PRIMARY, PRIMARY)
    return evidence.weigh(json.loads(text), [STANDBY], PRIMARY)[0]


def _documents() -> dict[str, Json]:
    """The documents of a run with other hosts, a rehearsal in which little things went wrong."""
    text = json.dumps({**run_factory.documents(), "ratings.json": run_factory.ratings(4, 5)})
    text = text.replace(run_factory.STANDBY, STANDBY).replace(run_factory.PRIMARY, PRIMARY)
    documents: dict[str, Json] = json.loads(text) | {"verdict.json": _verdict()}
    documents["run.json"] |= {
        "rehearsal": True,
        "notes": ["The LLM is a random Gemma of two layers."],
        "git_commit": "c9cd45b463ae91a882afa984ede091502b2886a0-dirty",
    }
    failed = {"ok": False, "cold_cache": True, "error": ERROR}
    failed |= {"ops": [{"name": "abs", "ok": False, "error": ERROR}]}
    guard = documents[f"install-{STANDBY}.json"]["guard"]
    guard |= {"decision": "patched", "probe": failed, "patched_probe": guard["probe"]}
    guard["verify"] = {"ok": True, "max_relative_error": 2e-7, "tolerance": 1e-5, "detail": "so"}
    rows = documents[f"bench-{STANDBY}.json"]["utterances"]
    rows[3] |= {"retries": [{"seed": 2004, "reason": "silent"}], "hit_cap": True}
    rows[6]["audio"] |= {"clipped_samples": 12, "problems": ["12 samples are clipped."]}
    rows[7]["audio"]["loudness_lufs"] = -21.4
    return documents


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = run_factory.write(tmp_path_factory.mktemp("reports"), _documents())
    (run_dir / f"{run_factory.STANDBY}_native").rename(run_dir / f"{STANDBY}_native")
    (run_dir / f"{run_factory.PRIMARY}_baseline").rename(run_dir / f"{PRIMARY}_baseline")
    return run_dir


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


class Page(html.parser.HTMLParser):
    """What a test asks of a page: its words, its elements, and that it is well nested."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run_dir: Path) -> Page:
    path = report.render(run_dir)
    assert path == run_dir / "report.html"
    return Page(path)


class TestCompleteRun:
    def test_it_says_what_the_run_found(self, run_dir: Path) -> None:
        text = page_of(run_dir).text
        for words in (
            VERDICT,
            "the listening test is still to come",
            "This was a rehearsal.",
            "random Gemma of two layers",
            "20261122-031500Z",
            "c9cd45b463-dirty",
            "Not met",
            "Not yet",
            ERROR,
            "Overridden",
            "Not Supported",
            "\N{MINUS SIGN}21.4 LUFS",
            "3.72 GB",
            "1.016",
            "the median before: allowed afterwards",
            "Ran into the token cap",
            "1 retry: silent",
            "12 samples are clipped.",
            "score 4 of 5",
        ):
            assert words in text
        assert "What went wrong" not in text

    def test_every_recording_is_in_the_page_without_loss(self, run_dir: Path) -> None:
        page = page_of(run_dir)
        audio = page.all("audio")
        assert len(audio) == 20
        assert all(one["preload"] == "none" and "controls" in one for one in audio)
        kind, _, packed = str(audio[0]["src"]).partition(",")
        assert kind == "data:audio/flac;base64"
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(packed)), dtype="int16")
        spoken, _ = soundfile.read(run_dir / f"{STANDBY}_native/u01.wav", dtype="int16")
        assert rate == 24_000
        assert np.array_equal(heard, spoken)

    def test_it_needs_nothing_outside_itself(self, run_dir: Path) -> None:
        page = page_of(run_dir)
        assert not page.all("link")
        for tag, attributes in page.elements:
            assert "srcset" not in attributes
            if src := attributes.get("src"):
                assert tag == "audio"
                assert src.startswith("data:")
            if href := attributes.get("href"):
                assert href.startswith("#")
        style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)
        assert style
        assert "url(" not in style[1]
        assert "@import" not in style[1]
        assert "default-src 'none'" in page.source

    def test_links_inside_the_page_lead_somewhere(self, run_dir: Path) -> None:
        page = page_of(run_dir)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {str(link["href"]).lstrip("#") for link in page.all("a")} <= set(ids)
        assert {str(use["href"]).lstrip("#") for use in page.all("use")} <= set(ids)

    def test_tables_and_drawings_can_be_read_aloud(self, run_dir: Path) -> None:
        page = page_of(run_dir)
        assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.elements}
        assert all("scope" in cell for cell in page.all("th"))
        assert all("aria-label" in one for one in page.all("svg") if one.get("role") == "img")
        assert all(one.get("role") == "img" or one.get("aria-hidden") for one in page.all("svg"))

    def test_the_same_directory_gives_the_same_page(self, run_dir: Path) -> None:
        first = report.render(run_dir).read_bytes()
        assert report.render(run_dir).read_bytes() == first
        assert not list(run_dir.glob(".*"))

    def test_names_come_from_the_data(self, run_dir: Path) -> None:
        text = page_of(run_dir).text.lower()
        assert "titan" not in text
        assert "panda" not in text

    def test_no_band_on_a_real_run(self, run_dir: Path) -> None:
        for name in ("run.json", "verdict.json"):
            run_factory.put(run_dir, name, _edit(run_dir, name) | {"rehearsal": False})
        assert "This was a rehearsal." not in page_of(run_dir).text

    @pytest.mark.parametrize(("code", "words"), [(k, v[0]) for k, v in report.VERDICTS.items()])
    def test_every_verdict_has_a_meaning(self, run_dir: Path, code: str, words: str) -> None:
        run_factory.put(run_dir, "verdict.json", _edit(run_dir, "verdict.json") | {"verdict": code})
        page = page_of(run_dir)
        assert words in page.text
        assert code in page.text
        assert "{" not in page.text

    def test_two_standbys(self, run_dir: Path) -> None:
        for name in ("install", "bench"):
            document = _edit(run_dir, f"{name}-{STANDBY}.json") | {"host": "second"}
            run_factory.put(run_dir, f"{name}-second.json", document)
        page = page_of(run_dir)
        assert "second (standby)" in page.text
        assert len(page.all("audio")) == 30

    def test_with_the_verdict_that_the_rules_give(self, tmp_path: Path) -> None:
        run_dir = run_factory.write(tmp_path)
        now = datetime(2026, 11, 22, 3, 25, tzinfo=UTC)
        run_factory.put(run_dir, "verdict.json", rules.compute(run_dir, now))
        page = page_of(run_dir)
        assert report.VERDICTS[VERDICT][0] in page.text
        assert "since the verdict" not in page.text
        assert len([one for one in page.all("svg") if one.get("role") == "img"]) == 4


class TestScores:
    FIRST = (5, 4, 4, 5, 5, 4, 5, 5, 4, 5)
    SECOND = (5, 5, 4, 5, 4, 5, 4, 5, 4, 5)

    def judged(self, tmp_path: Path, ratings: Json, **documents: Json) -> tuple[Page, Json]:
        files = run_factory.documents() | {"ratings.json": ratings}
        files |= {f"{name}.json": document for name, document in documents.items()}
        run_dir = run_factory.write(tmp_path, files)
        now = datetime(2026, 11, 22, 3, 45, tzinfo=UTC)
        found = rules.compute(run_dir, now)
        run_factory.put(run_dir, "verdict.json", found)
        return page_of(run_dir), found

    def test_a_session_of_two_passes(self, tmp_path: Path) -> None:
        ratings = run_factory.listened([*self.FIRST, *self.SECOND], [*self.SECOND] * 2)
        page, found = self.judged(tmp_path, ratings)
        assert found["evidence"]["level"] == "strong"
        for words in (
            "Strong evidence",
            "blind, on the page",
            *found["evidence"]["reasons"],
            *found["evidence"]["listener"]["says"],
            "score 5, 5 of 5",
            "score 4, 5 of 5",
            "within 0.5",
            "The listener says: the same voice.",
        ):
            assert words in page.text
        for words in ("Mind this", "The listener's verdict is", "Was not checked"):
            assert words not in page.text

    def test_the_differences_are_drawn(self, tmp_path: Path) -> None:
        page, found = self.judged(tmp_path, run_factory.listened([*self.FIRST], [*self.SECOND]))
        interval = found["evidence"]["hosts"]["titan"]["interval"]
        drawing = page.source.partition("<figcaption>Score of the standby")[2].partition("</svg>")[
            0
        ]
        scale = charts._Scale(charts._gutter(["mean"]), [-1, -0.5, 0, 0.5, 1])
        assert drawing.count('class="mark s0"') == 11
        for value in (-0.5, 0.5):
            assert f'class="limit" d="M{scale.x(value):.1f}' in drawing
        assert f'class="interval" d="M{scale.x(interval["low"]):.1f}' in drawing
        assert f"H{scale.x(interval['high']):.1f}" in drawing
        assert f"H{scale.x(-1):.1f}" in drawing
        assert "\N{MINUS SIGN}0.5</text>" in drawing

    def test_a_sheet_of_fives(self, tmp_path: Path) -> None:
        page, _ = self.judged(tmp_path, run_factory.ratings())
        for words in (
            "Weak evidence",
            "in a sheet",
            "10 pairs, one pass: an identical voice passes this rule 4 times in 5",
            "Was not checked: a sheet has no hidden repeats",
            "All 10 differences are 0.00",
            "a normal distribution with that spread was used, not t",
            "81 %",
            "score 5 of 5",
        ):
            assert words in page.text

    def test_stale_and_warned(self, tmp_path: Path) -> None:
        ratings = run_factory.listened([2] * 10, [2] * 10)
        ratings["given_for"]["titan"]["driver"] = "570.1"
        ear = run_factory.identity("diverged", "F0 differs by 1.1 semitones.")
        page, found = self.judged(tmp_path, ratings, identity=ear)
        head, _, _ = page.text.partition("The nine criteria")
        for words in (
            "The listener's verdict is stale.",
            *found["human"]["why"],
            "F0 differs by 1.1 semitones.",
            *found["warnings"],
        ):
            assert words in head

    def test_without_statistics(self, run_dir: Path) -> None:
        document = _edit(run_dir, "verdict.json") | {"evidence": None, "notes": ["No scipy."]}
        run_factory.put(run_dir, "verdict.json", document)
        text = page_of(run_dir).text
        assert "Evidence not weighed" in text
        assert "The scores were not weighed" in text
        assert "No scipy." in text

    def test_a_verdict_from_before_there_were_statistics(self, run_dir: Path) -> None:
        document = _edit(run_dir, "verdict.json")
        for key in ("evidence", "warnings", "human"):
            del document[key]
        run_factory.put(run_dir, "verdict.json", document)
        assert "Evidence not weighed" in page_of(run_dir).text


class TestWhatWentWrong:
    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_a_missing_file(self, run_dir: Path, name: str) -> None:
        (run_dir / name).unlink()
        assert VERDICT in page_of(run_dir).text or name == "verdict.json"

    def test_an_empty_directory(self, tmp_path: Path) -> None:
        text = page_of(tmp_path).text
        assert "No verdict yet" in text
        assert "Nothing was spoken." in text

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="gone"):
            report.render(tmp_path / "gone")

    @pytest.mark.parametrize("name", DOCUMENTS)
    @pytest.mark.parametrize(
        "content",
        [
            *(b"", b"{", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000),
            *(b'{"status": "failed"}', b'{"error": "so"}'),
            b'{"hosts": 3, "utterances": {"id": 1}}',
        ],
    )
    def test_a_malformed_file(self, run_dir: Path, name: str, content: bytes) -> None:
        (run_dir / name).write_bytes(content)
        text = page_of(run_dir).text
        if not content.startswith(b"{") or content == b"{":
            assert "What went wrong" in text
            assert f"reading {name}" in text

    def test_an_unreadable_file(self, run_dir: Path) -> None:
        (run_dir / "llm.json").unlink()
        (run_dir / "llm.json").mkdir()
        assert "reading llm.json" in page_of(run_dir).text

    def test_the_error_of_a_phase_is_prominent(self, run_dir: Path) -> None:
        error = {
            "kind": "blackwell",
            "host": STANDBY,
            "trying": "to prepare the voice reference",
            "seen": f"RuntimeError: {ERROR} <script>alert(1)</script>",
            "next": "ansible-playbook bench.yml -e stft_patch=force",
        }
        name = f"install-{STANDBY}.json"
        run_factory.put(run_dir, name, _edit(run_dir, name) | {"status": "failed", "error": error})
        page = page_of(run_dir)
        before, _, _ = page.text.partition("The nine criteria")
        for key in ("trying", "seen", "next"):
            assert error[key] in before
        assert "<script>alert" not in page.source

    def test_checks_that_failed_before_the_run(self, run_dir: Path) -> None:
        document = _edit(run_dir, "preflight.json")
        detail, step = "4 GB free at /home/op, 12 GB are needed.", "ssh spark df -h /home/op"
        document["checks"][0] |= {"ok": False, "detail": detail, "next": step}
        run_factory.put(run_dir, "preflight.json", document)
        before, _, _ = page_of(run_dir).text.partition("The nine criteria")
        assert detail in before
        assert step in before

    def test_a_phase_that_never_ended(self, run_dir: Path) -> None:
        name = f"bench-{STANDBY}.json"
        document = _edit(run_dir, name) | {"status": "running", "finished_at": None}
        document["utterances"] = document["utterances"][:4]
        run_factory.put(run_dir, name, document)
        page = page_of(run_dir)
        assert "was not finished" in page.text
        assert page.text.count("Not spoken.") == 6

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "Missing: spark_native/u01.wav"),
            (b"", "not a readable recording"),
            (b"<html>", "not a readable recording"),
            (b"RIFF\x24\x00\x00\x00WAVEfmt ", "not a readable recording"),
        ],
    )
    def test_a_bad_recording(self, run_dir: Path, content: bytes | None, words: str) -> None:
        wav = run_dir / f"{STANDBY}_native/u01.wav"
        if content is None:
            wav.unlink()
        else:
            wav.write_bytes(content)
        page = page_of(run_dir)
        assert words in page.text
        assert len(page.all("audio")) == 19

    def test_another_recording_than_the_one_measured(self, run_dir: Path) -> None:
        _wav(run_dir / f"{STANDBY}_native/u02.wav", 0.5, 300)
        assert "its SHA-256 differs" in page_of(run_dir).text

    @pytest.mark.parametrize("wav", ["../secret.wav", "/etc/hostname", "a\0b", "x" * 5000, "."])
    def test_a_recording_elsewhere_is_not_read(self, run_dir: Path, wav: str) -> None:
        _wav(run_dir.parent / "secret.wav", 0.2, 200)
        document = _edit(run_dir, f"bench-{STANDBY}.json")
        document["utterances"][0]["wav"] = wav
        run_factory.put(run_dir, f"bench-{STANDBY}.json", document)
        assert len(page_of(run_dir).all("audio")) == 19

    def test_a_file_that_changed_since_the_verdict(self, run_dir: Path) -> None:
        document = _edit(run_dir, "verdict.json")
        document["files"] = [
            {"name": "llm.json", "sha256": "00" * 32},
            {"name": "gone.json", "sha256": "11" * 32},
        ]
        run_factory.put(run_dir, "verdict.json", document)
        text = page_of(run_dir).text
        assert "llm.json changed since the verdict" in text
        assert "gone.json gone since the verdict" in text

    def test_a_page_that_cannot_be_written_leaves_nothing(self, run_dir: Path) -> None:
        (run_dir / "report.html").mkdir()
        with pytest.raises(IsADirectoryError):
            report.render(run_dir)
        assert not list(run_dir.glob(".*"))


STRANGE: list[Json] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "text",
    "<b>&'\"",
    "\ud800",
    "\0",
    [],
    [None],
    [[]],
    [1, "a", {}],
    {},
    {"a": None},
    {"id": []},
]


def _places(value: Json) -> list[tuple[Json, Any]]:
    """Every container in a document with every key into it."""
    found: list[tuple[Json, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found.extend(_places(value[key]))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_value_of_any_type_breaks_the_page(run_dir: Path, name: str) -> None:
    """Each round puts strange values into many places of one document."""
    for wav in run_dir.rglob("*.wav"):
        wav.unlink()
    original = _edit(run_dir, name)
    noise = random.Random(name)
    for share in (0.02, 0.05, 0.1, 0.3) * 8:
        document = copy.deepcopy(original)
        for container, key in _places(document):
            if noise.random() < share:
                container[key] = noise.choice(STRANGE)
        (run_dir / name).write_text(json.dumps(document), encoding="utf-8")
        page_of(run_dir)


def test_deeply_nested_values(run_dir: Path) -> None:
    deep: Json = []
    for _ in range(150):
        deep = {"a": [deep]}
    for name in DOCUMENTS:
        run_factory.put(run_dir, name, dict.fromkeys(_edit(run_dir, name), deep))
    page_of(run_dir)


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (None, doc.UNKNOWN),
            (True, "yes"),
            (0, "0"),
            (0.5234567, "0.5235"),
            (-21.4, "\N{MINUS SIGN}21.4"),
            (12.0, "12"),
            ([], "none"),
            (["a", 1], "a, 1"),
            ({"a": None}, "a: \N{EN DASH}"),
            (float("nan"), doc.UNKNOWN),
            (10**400, doc.UNKNOWN),
            ("-x", "-x"),
        ],
    )
    def test_show(self, value: Json, shown: str) -> None:
        assert doc.show(value) == shown

    def test_units(self) -> None:
        assert doc.size(3_720_000_000) == "3.72 GB"
        assert doc.size(999) == "999 bytes"
        assert doc.size(None) == doc.UNKNOWN
        assert doc.seconds(0.5) == "0.50 s"
        assert doc.seconds(125.4) == "2 min 05 s"
        assert doc.percent(0.44) == "44 %"
        assert doc.percent(0.999) == "more than 99 %"
        assert doc.percent(0.0) == "less than 1 %"
        assert doc.percent("x") == doc.UNKNOWN
        assert doc.ms(190.4) == "190 ms"
        assert doc.when("2026-11-22T04:15:00+01:00") == "2026-11-22 03:15:00 UTC"
        assert doc.when("yesterday") == "yesterday"


class TestCharts:
    @pytest.mark.parametrize("largest", [0, 1e-300, 0.03, 0.52, 1, 1.04, 7, 263, 99_999, 9e8])
    def test_ticks_are_few_and_reach_the_largest_value(self, largest: float) -> None:
        marks = charts.ticks(largest)
        assert marks[0] == 0
        assert marks[-1] >= largest
        assert 2 <= len(marks) <= 5

    def test_nothing_to_draw(self) -> None:
        assert charts.dots("none", ["u01"], [charts.Series("a", [None])], "s") is None
        assert charts.dots("none", ["u01"], [charts.Series("a", [1e300])], "s") is None
        assert charts.strips("none", [("before", [], None)], "ms") is None
        assert charts.stack("none", [("a", 0.0), ("b", None)]) is None
        limit, mean = (0.5, "limit"), (None, None, None)
        assert charts.signed("none", ["u01"], [charts.Series("a", [None])], "p", limit, []) is None
        assert charts.signed("none", [], [], "p", limit, [mean]) is None

    def test_every_part_of_the_time_has_a_colour_of_its_own(self) -> None:
        drawn = charts.stack("time", [(name, 1.0) for _, name in report.SPLIT])
        used = re.findall(r'class="part (p\d)"', str(drawn))
        css = (Path(report.__file__).parent / "templates/report.css").read_text("utf-8")
        fills = dict(re.findall(r"\.(p\d) \{ fill: var\((--s\d)\)", css))
        assert len(used) == len(report.SPLIT)
        assert len({fills[name] for name in used}) == len(report.SPLIT)

    @pytest.mark.parametrize(("value", "last"), [(-0.2, "1"), (1.5, "2"), (-4.0, "4")])
    def test_both_sides_are_alike(self, value: float, last: str) -> None:
        means = [(None, value, None)]
        series = [charts.Series("a", [value])]
        drawn = str(charts.signed("d", ["u01"], series, "p", (0.5, "limit"), means))
        ticks = re.findall(r'class="tick"[^>]*>([^<]*)<', drawn)
        assert (ticks[0], ticks[len(ticks) // 2], ticks[-1]) == (f"\N{MINUS SIGN}{last}", "0", last)
        assert 'class="interval"' not in drawn

    def test_labels_are_escaped(self) -> None:
        drawn = charts.dots("<d>", ["<u>"], [charts.Series("a", [1.0])], "<s>", (1.0, "<l>"))
        assert drawn
        for name in ("<d>", "<u>", "<s>", "<l>"):
            assert name not in drawn


# --- the similarity check ---------------------------------------------------------------------


def _identity() -> Json:
    row = {"label": "Pitch, median", "unit": "semitones", "signed": True, "detects": None}
    return {
        "schema_version": 1,
        "result": "diverged",
        "host": STANDBY,
        "primary": PRIMARY,
        "reasons": ["Pitch, median, on the full band: +1.02 semitones from tower to spark."],
        "calibration": {
            "made_at": "2026-11-22T01:00:00Z",
            "takes": 8,
            "matches": True,
            "notes": ["x_vector does not tell the impostors apart."],
        },
        "measures": [
            row
            | {
                "name": "full.f0_median",
                "band": "full",
                "value": 1.02,
                "gate": 0.53,
                "ok": False,
                "separates": True,
            },
            row
            | {
                "name": "telephone.f0_median",
                "band": "telephone",
                "value": 0.2,
                "gate": 0.48,
                "ok": True,
                "separates": True,
            },
        ],
        "sides": {STANDBY: {"f0_median_hz": 117.2}, PRIMARY: {"f0_median_hz": 110.5}},
        "missing": [{"measure": "resemblyzer", "why": "not installed"}],
        "facts": {
            "note": None,
            "rows": [
                {
                    "name": "cuda",
                    "values": {STANDBY: "13.0", PRIMARY: "12.8"},
                    "differs": True,
                    "note": None,
                },
                {
                    "name": "dtype",
                    "values": {STANDBY: "float32", PRIMARY: "float32"},
                    "differs": False,
                    "note": None,
                },
            ],
        },
    }


def test_what_the_similarity_check_measured_is_shown(run_dir: Path) -> None:
    (run_dir / "identity.json").write_text(json.dumps(_identity()))
    page = report.render(run_dir).read_text()
    section = page[page.index('<section id="similarity"') : page.index('<section id="speed"')]
    shown = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    for text in (
        "Not the same voice diverged",
        "+1.02 semitones from tower to spark",
        "Pitch, median semitones 1.02 past ±0.53 0.2 ±0.48 yes",
        "does not tell the impostors apart",
        "resemblyzer is missing: not installed",
        "Pitch, median (Hz) 117.2 110.5",
        "cuda 13.0 12.8 yes",
        "dtype float32 float32 no",
    ):
        assert text in shown, text


@pytest.mark.parametrize("spoilt", ["[]", '{"result": 5, "measures": {"a": 1}, "sides": []}'])
def test_an_odd_identity_spoils_nothing(run_dir: Path, spoilt: str) -> None:
    (run_dir / "identity.json").write_text(spoilt)
    assert '<section id="similarity"' in report.render(run_dir).read_text()
    (run_dir / "identity.json").unlink()
    assert "were not compared" in report.render(run_dir).read_text()
