"""The whole benchmark on real parts: what a good run leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from in_rehearsal import Played, llm_answers, play, service
from played import ROOT

from understudy.documents.validate import validate_run


def test_a_run_ends_by_waiting_for_a_listener(whole_run: Played) -> None:
    assert whole_run.status == 0, whole_run.output[-3000:]
    verdict = whole_run.verdict
    assert (verdict["verdict"], verdict["ok"]) == ("awaiting_ab_scores", True)
    last = whole_run.output.strip().splitlines()
    recap = next(i for i, line in enumerate(last) if line.startswith("PLAY RECAP"))
    assert any(line.startswith("verdict: awaiting_ab_scores (ok)") for line in last[recap:])
    assert last[-1].startswith("report: ")


def test_the_run_directory_is_valid(whole_run: Played) -> None:
    run_dir = (whole_run.reports / "latest").resolve()
    assert validate_run(run_dir) == []
    assert len(list(run_dir.glob("titan_native/*.wav"))) == 10
    assert len(list(run_dir.glob("panda_baseline/*.wav"))) == 10
    page = (run_dir / "report.html").read_text()
    assert page.count("data:audio/flac;base64,") == 20
    assert "http://" not in page.replace("http://127.0.0.1", "").replace("http://www.w3.org", "")


def test_progress_is_shown_while_it_happens(whole_run: Played) -> None:
    lines = whole_run.output.splitlines()
    follow = next(i for i, line in enumerate(lines) if "Follow the job" in line)
    third = next(i for i, line in enumerate(lines) if "titan  timed 3/10  RTF " in line)
    ended = next(i for i, line in enumerate(lines) if i > follow and line.startswith("ok: [titan]"))
    assert follow < third < ended


def test_the_llm_was_really_stopped_and_is_back(whole_run: Played) -> None:
    window = whole_run.document("llm.json")["hosts"]["titan"]
    assert window["mode"] == "pause"
    assert window["paused_at"]
    assert window["back_after_s"] > 0
    assert window["closed"] is True
    assert window["before"]["n"] == window["after"]["n"] == 20
    log = (ROOT / ".rehearsal/logs/supervisord.log").read_text()
    assert "stopped: gemma" in log
    assert "RUNNING" in service("status", "gemma")
    assert llm_answers()


def test_the_install_says_what_it_installed(whole_run: Played) -> None:
    install = whole_run.document("install-titan.json")
    assert install["import_ok"] is True
    assert install["venv"]["built_from_source"] == []
    overridden = {pin["name"] for pin in install["venv"]["pins"] if pin["overridden"]}
    assert "torch" in overridden
    assert install["weights"]["random"] is True
    assert install["guard"]["decision"] == "not_applicable"
    assert install["smoke"]["ok"] is True
    assert install["smoke"]["voice"] == "default"


def test_every_utterance_was_measured(whole_run: Played) -> None:
    bench = whole_run.document("bench-titan.json")
    assert (len(bench["warmup"]), len(bench["utterances"])) == (2, 10)
    assert bench["environment"]["versions"]["chatterbox-tts"] == "0.1.7"
    assert bench["environment"]["weights"]
    for row in bench["utterances"]:
        assert row["rtf"] == pytest.approx(row["wall_s"] / row["audio_s"])
        assert row["hit_cap"] is False
    baseline = whole_run.document("baseline-panda.json")
    texts = [row["text_sha256"] for row in bench["utterances"]]
    assert [row["text_sha256"] for row in baseline["utterances"]] == texts


def test_the_voices_were_compared_and_not_judged(whole_run: Played) -> None:
    identity = whole_run.document("identity.json")
    assert (identity["status"], identity["error"]) == ("ok", None)
    assert (identity["result"], identity["missing"]) == ("uncalibrated", [])
    assert len(identity["utterances"]) == 10
    differs = {row["name"]: row["differs"] for row in identity["facts"]["rows"]}
    assert {differs[f"stft {name}"] for name in ("400/160", "1920/480", "16/4")} == {False}
    assert differs["weights s3gen.safetensors"] is differs["voice_sha256"] is False


def test_all_of_it_stays_below_6_gb(whole_run: Played) -> None:
    print(f"peak resident memory of the whole rehearsal: {whole_run.peak_rss_bytes / 1e9:.2f} GB")
    assert 1e9 < whole_run.peak_rss_bytes < 6e9


def test_a_second_run_changes_nothing_and_says_the_same(whole_run: Played, reports: Path) -> None:
    # In parallel this time, so that the LLM is watched while the standby speaks.
    again = play(reports, "bench.yml", "-e", "gemma_mode=parallel", "-e", "tts_bench_warmup=0")
    assert again.status == 0, again.output[-3000:]
    assert again.recap("titan")["changed"] == 0
    assert again.recap("panda")["changed"] == 0
    window = again.document("llm.json")["hosts"]["titan"]
    assert window["paused_at"] is None
    assert window["during"]["n"] > 5
    assert window["during_ratio"] > 0
    assert validate_run((again.reports / "latest").resolve()) == []
    # The same seed, text, voice and weights on a CPU: the same bits, warm-ups or not.
    first, second = (p.document("bench-titan.json")["utterances"] for p in (whole_run, again))
    assert [row["wav_sha256"] for row in first] == [row["wav_sha256"] for row in second]


def sheet(path: Path, titan: list[float], panda: list[float]) -> Path:
    rows = [f"u{i:02},{t},{p}" for i, (t, p) in enumerate(zip(titan, panda, strict=True), 1)]
    path.write_text("\n".join(["utterance,titan,panda", *rows]) + "\n")
    return path


def score(run: Played, copy: Path, scores: Path) -> Played:
    if not copy.exists():
        shutil.copytree((run.reports / "latest").resolve(), copy / run.verdict["run_id"])
        (copy / "latest").symlink_to(run.verdict["run_id"])
    return play(copy, "score.yml", "-e", f"ab_scores={scores}")


def test_scores_give_the_verdict_that_the_rule_says(
    whole_run: Played, reports: Path, tmp_path: Path
) -> None:
    same = score(whole_run, reports, sheet(tmp_path / "same.csv", [4] * 10, [4] * 9 + [5]))
    assert same.status == 0
    assert same.verdict["verdict"] == "titan_chatterbox_redundancy_validated"

    bad = score(whole_run, reports, sheet(tmp_path / "bad.csv", [4] * 9 + [6], [4] * 10))
    assert bad.status != 0
    assert "u10" in bad.text
    assert bad.verdict["verdict"] == "titan_chatterbox_redundancy_validated"

    half = score(whole_run, reports, sheet(tmp_path / "half.csv", [4] * 10, [4, 5] * 5))
    assert half.status != 0
    assert half.verdict["verdict"] == "titan_chatterbox_diverges_from_panda_investigate"
