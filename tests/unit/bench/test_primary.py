import hashlib
import json
import threading
import time

import numpy as np
import pytest
from loopback import HTML, RATE, Answer, Scripted, free_port, pcm_answer, reads_out, speechlike

from understudy.audio import pcm
from understudy.bench import primary
from understudy.common.jsonio import JsonError, read_json, write_json
from understudy.common.progress import Progress
from understudy.documents.validate import load_schemas
from understudy.serve.canary import fresh_sentence

TEXTS = ["Hello, how are you?", "Please hold the line.", "See you on Thursday."]
MUTE = pcm_answer(np.zeros(2 * RATE))
GOOD = pcm_answer(speechlike(2.0))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(primary, "RETRY_PAUSE_S", 0.0)


def config(url, out_dir, **changes):
    return {
        "run_id": "20261122-031500Z",
        "host": "panda",
        "url": url,
        "synthesis_path": "/synthesize",
        "health_path": "/health",
        "token_file": None,
        "reference_audio": "samantha.wav",
        "tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6},
        "utterances": [
            {
                "id": f"u{i:02}",
                "text": text,
                "seed": 1000 + i,
                "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
            for i, text in enumerate(TEXTS, 1)
        ],
        "warmup": 1,
        "timeout_s": 5,
        "max_retries": 2,
        "out_dir": str(out_dir),
        "wav_dir": "panda_baseline",
        "during_bench": True,
        **changes,
    }


def run(server, tmp_path, **changes):
    """Run against a server; checks what holds for every result, and returns it."""
    url = server if isinstance(server, str) else server.url
    result_path = tmp_path / "baseline-panda.json"
    result = primary.run(
        config(url, tmp_path, **changes), result_path, Progress(tmp_path / "progress")
    )
    assert read_json(result_path) == result
    assert list(result)[:12] == [
        "schema_version",
        "run_id",
        "phase",
        "host",
        "status",
        "started_at",
        "finished_at",
        "error",
        "url",
        "health",
        "reference_audio",
        "during_bench",
    ]
    assert result["finished_at"].endswith("Z")
    assert (result["status"] == "ok") is (result["error"] is None)
    for row in result["utterances"]:
        assert list(row) == [
            "id",
            "text_sha256",
            "ok",
            "wall_s",
            "ttfb_s",
            "audio_s",
            "rtf",
            "http_status",
            "retries",
            "wav",
            "wav_sha256",
            "audio",
            "error",
        ]
        assert (tmp_path / "panda_baseline" / f"{row['id']}.wav").exists() is bool(row["wav"])
        assert row["ok"] is (row["error"] is None)
    return result


def scripted(answers):
    """A speech server that gives these answers in turn, and then good ones."""
    answers = iter(answers)
    return Scripted(lambda _: next(answers, GOOD))


def test_every_utterance_is_spoken_checked_and_kept(tmp_path):
    with Scripted(GOOD) as fake:
        result = run(fake, tmp_path)
    assert result["status"] == "ok"
    assert result["health"] == {"status": "ok"}
    assert result["during_bench"] is True
    assert [json.loads(r.body)["text"] for r in fake.spoken[1:]] == TEXTS
    assert json.loads(fake.spoken[0].body)["text"] not in TEXTS  # the warm-up
    row = result["utterances"][0]
    assert (row["ok"], row["http_status"], row["retries"], row["audio_s"]) == (True, 200, [], 2.0)
    assert row["rtf"] == pytest.approx(row["wall_s"] / 2.0)
    assert row["wav"] == "panda_baseline/u01.wav"
    wav = tmp_path / row["wav"]
    assert row["wav_sha256"] == hashlib.sha256(wav.read_bytes()).hexdigest()
    assert pcm.float_to_pcm16(pcm.read_wav(wav)[0]) == GOOD.body
    assert result["aggregate"]["ok_count"] == 3
    assert result["aggregate"]["rtf"]["n"] == 3
    assert result["aggregate"]["audio_s"]["mean"] == 2.0
    assert [b["what"] for b in result["busy"]] == ["synthesis"] * 4
    assert all(b["end"] >= b["start"] > 1.7e9 for b in result["busy"])


def test_progress_is_one_line_per_utterance(tmp_path):
    with Scripted(GOOD) as fake:
        result = run(fake, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [(line["index"], line["n"]) for line in lines] == [(1, 3), (2, 3), (3, 3)]
    rtf = result["utterances"][2]["rtf"]
    assert lines[2]["text"] == f"panda  baseline 3/3  RTF {rtf:.2f}"
    assert list(lines[2]) == ["at", "host", "phase", "index", "n", "rtf", "text"]


def test_the_token_is_sent_and_appears_nowhere(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    with Scripted(lambda r: Answer(r.headers["x-internal-token"].encode(), 403)) as fake:
        result = run(fake, tmp_path, token_file=str(token))
    assert fake.spoken[0].headers["x-internal-token"] == "s3cret-token"
    assert "token file of panda" in result["error"]["next"]
    assert "s3cret" not in json.dumps(result)


def test_a_mute_answer_is_asked_for_again_and_recorded(tmp_path):
    with scripted([GOOD, MUTE, HTML]) as fake:
        result = run(fake, tmp_path)
    first, second = result["utterances"][:2]
    assert result["status"] == "ok"
    assert len(first["retries"]) == 2
    assert first["retries"][0] == {"reason": "silent: the loudest sample is -inf dBFS"}
    assert "a web page" in first["retries"][1]["reason"]
    assert second["retries"] == []
    assert "(2 retries)" in (tmp_path / "progress").read_text().splitlines()[0]


def test_a_mute_primary_fails_but_every_utterance_is_tried(tmp_path):
    with Scripted(MUTE) as fake:
        result = run(fake, tmp_path)
    assert len(fake.spoken) == 1 + 3 * 3
    assert result["status"] == "failed"
    assert result["aggregate"]["ok_count"] == 0
    assert result["aggregate"]["rtf"]["mean"] is None
    assert result["error"]["kind"] == "baseline"
    assert result["error"]["host"] == "panda"
    assert result["error"]["seen"].startswith("3 of 3 failed; u01: silent: the loudest sample")
    assert result["utterances"][0]["audio"]["peak_dbfs"] is None


def test_an_error_after_bad_audio_leaves_no_figures_of_the_bad_audio(tmp_path):
    with scripted([GOOD, MUTE, MUTE, HTML]) as fake:
        row = run(fake, tmp_path)["utterances"][0]
    assert [row[k] for k in ("wall_s", "rtf", "audio", "wav")] == [None] * 4
    assert row["http_status"] == 200


def test_no_more_than_the_retries_allowed(tmp_path):
    with scripted([MUTE, MUTE]) as fake:
        result = run(fake, tmp_path, warmup=0, max_retries=1)
    assert [row["ok"] for row in result["utterances"]] == [False, True, True]
    assert result["error"]["seen"].startswith("1 of 3 failed; u01")


def test_nobody_there(tmp_path):
    result = run(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert result["status"] == "failed"
    assert result["health"] is None
    assert "refused" in result["health_note"]
    assert result["utterances"] == []
    assert "refused" in result["error"]["seen"]
    assert result["error"]["next"].startswith("curl -i -m 10 http://127.0.0.1:")


def test_a_server_that_dies_half_way_is_not_waited_for_by_the_rest(tmp_path):
    with scripted([GOOD, GOOD, *[Answer(delay_s=0.6)] * 9]) as fake:
        result = run(fake, tmp_path, timeout_s=0.3)
    assert [row["ok"] for row in result["utterances"]] == [True, False]
    assert "no complete reply within 0.3 s" in result["error"]["seen"]


def test_a_killed_run_leaves_what_it_had(tmp_path):
    path = tmp_path / "baseline-panda.json"
    seen = threading.Event()

    def slow_third(request):
        if json.loads(request.body)["text"] == TEXTS[2]:
            seen.set()
            time.sleep(0.3)
        return GOOD

    with Scripted(slow_third) as fake:
        thread = threading.Thread(target=run, args=(fake, tmp_path), daemon=True)
        thread.start()
        assert seen.wait(5)
        half = read_json(path)
        thread.join(5)
    assert half["status"] == "running"
    assert half["finished_at"] is None
    assert [row["id"] for row in half["utterances"]] == ["u01", "u02"]
    assert half["aggregate"]["ok_count"] == 2


def test_a_disk_that_is_full_is_recorded(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pcm, "write_wav", full)
    with Scripted(GOOD) as fake:
        result = run(fake, tmp_path)
    assert "No space left" in result["error"]["seen"]
    assert result["error"]["trying"].startswith("speaking u01 at http://127.0.0.1")


def test_a_stale_sample_does_not_survive_a_failure(tmp_path):
    (tmp_path / "panda_baseline").mkdir()
    (tmp_path / "panda_baseline" / "u01.wav").write_bytes(b"old")
    with scripted([GOOD, HTML, HTML, HTML]) as fake:
        run(fake, tmp_path)
    assert not (tmp_path / "panda_baseline" / "u01.wav").exists()


def test_the_result_is_what_its_schema_says(tmp_path):
    (validator,) = [v for name, v in load_schemas().items() if name.startswith("baseline")]
    utterances = [
        {"id": f"u{i:02}", "text": "Please hold the line.", "text_sha256": "0" * 64}
        for i in range(1, 11)
    ]
    with Scripted(GOOD) as fake:
        good = run(fake, tmp_path, utterances=utterances)
        bad = run(f"http://127.0.0.1:{free_port()}", tmp_path)
    with Scripted(MUTE) as fake:
        mute = run(fake, tmp_path)
    for result in (good, bad, mute):
        assert [error.message for error in validator.iter_errors(result)] == []


# probe


def probe(fake, **changes):
    found = primary.probe(
        config(fake if isinstance(fake, str) else fake.url, "/nowhere", **changes)
    )
    problems, busy = found.pop("problems"), found.pop("busy")
    asked = found["spoke"] or found["wall_s"] or any("for speech" in p["seen"] for p in problems)
    assert {row["what"] for row in busy} == ({"synthesis"} if asked else set())
    assert all(0 <= row["end"] - row["start"] < 60 for row in busy)
    assert list(found) == ["url", "healthy", "health", "spoke", "wall_s", "audio", "rehearsal"]
    assert found["healthy"] is (not problems)
    assert all(set(p) == {"seen", "next"} and p["seen"] and p["next"] for p in problems)
    return found, [p["seen"] for p in problems]


def test_a_primary_that_speaks_is_healthy():
    with Scripted(reads_out) as fake:
        found, problems = probe(fake)
    assert problems == []
    assert (found["spoke"], found["audio"]["problems"]) == (True, [])
    assert (found["wall_s"] > 0, found["rehearsal"]) == (True, False)
    first, second = (json.loads(r.body)["text"] for r in fake.spoken)
    assert not set(first.lower().split()) & set(second.lower().split()) - PREPOSITIONS


PREPOSITIONS = {"on", "the", "in", "at", "were", "be", "have", "been"}
HUMMING = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
HISSING = np.random.default_rng(1).normal(0, 0.05, 4 * RATE)


@pytest.mark.parametrize(("audio", "seen"), [(HUMMING, "a pure tone"), (HISSING, "0 % of it")])
def test_what_is_no_speech_is_not_healthy_and_is_asked_once(audio, seen):
    with Scripted(pcm_answer(audio)) as fake:
        found, problems = probe(fake)
    assert (found["healthy"], found["spoke"], len(fake.spoken)) == (False, False, 1)
    assert f"not speech: {seen}" in problems[0]


def test_a_recording_that_answers_every_sentence_is_not_healthy():
    with Scripted(pcm_answer(speechlike(4.0))) as fake:
        found, problems = probe(fake)
    assert (found["healthy"], found["spoke"], len(fake.spoken)) == (False, False, 2)
    assert "the same recording for two sentences" in problems[0]
    answers = iter([speechlike(4.0), 0.5 * speechlike(4.0)[2000:80_000]])
    with Scripted(lambda _: pcm_answer(next(answers))) as fake:  # cut, and turned down
        assert not probe(fake)[0]["healthy"]


def test_replies_are_compared_with_all_earlier_ones():
    recorded = [pcm_answer(speechlike(4.0, seed=seed)) for seed in (1, 2, 3, 1)]
    earlier = []
    with Scripted(lambda _: recorded.pop(0)) as fake:
        healthy = [primary.probe(config(fake.url, "/nowhere"), earlier) for _ in range(4)]
    assert [one["healthy"] for one in healthy] == [True, True, True, False]
    assert len({text for text, _ in earlier}) == len(earlier) == 3


def test_a_rehearsals_noise_is_enough_where_the_server_says_so():
    headers = {"X-Understudy-Rehearsal": "true"}
    answers = [np.random.default_rng(seed).normal(0, 0.05, 4 * RATE) for seed in (1, 2)]
    with Scripted(lambda _: pcm_answer(answers.pop(0), **headers)) as fake:
        found, problems = probe(fake)
    assert (problems, found["healthy"], found["rehearsal"]) == ([], True, True)
    with Scripted(pcm_answer(np.zeros(4 * RATE), **headers)) as fake:
        assert "silent" in probe(fake)[1][0]
    with Scripted(pcm_answer(HISSING, **headers)) as fake:
        assert "the same recording for two sentences" in probe(fake)[1][0]


def test_a_mute_primary_is_not_healthy_whatever_its_health_says():
    with Scripted(pcm_answer(np.zeros(4 * RATE))) as fake:
        found, problems = probe(fake)
    assert (found["healthy"], found["spoke"]) == (False, False)
    assert found["health"] == {"status": "ok"}
    assert problems[0].endswith("silent: the loudest sample is -inf dBFS")
    assert fake.url in problems[0]


def test_html_everywhere_is_two_problems():
    with Scripted(HTML, health=HTML) as fake:
        found, problems = probe(fake)
    assert len(problems) == 2
    assert all("a web page" in problem for problem in problems)
    assert found["audio"] is None


def test_a_primary_that_speaks_but_has_no_health():
    with Scripted(reads_out, health=Answer(b"", 404)) as fake:
        found, problems = probe(fake)
    assert len(fake.spoken) == 1
    assert (found["spoke"], found["healthy"], found["health"]) == (True, False, None)
    assert "status 404" in problems[0]


def test_a_primary_that_is_gone_is_one_problem():
    found, problems = probe(f"http://127.0.0.1:{free_port()}")
    assert len(problems) == 1
    assert "refused" in problems[0]
    assert found["healthy"] is False


@pytest.mark.parametrize("url", ["panda:8772", "http://fd00::7:8772"])
def test_an_address_that_is_no_url_is_the_inventorys_problem(url):
    seen = f"{url!r} is no base URL, such as http://panda:8772 or http://[fd00::7]:8772"
    assert primary.probe(config(url, "/nowhere"))["problems"] == [
        {"seen": seen, "next": "correct the inventory of panda"}
    ]


def test_a_token_file_that_is_missing_is_a_problem(tmp_path):
    _, problems = probe("http://127.0.0.1:1", token_file=str(tmp_path / "none"))
    assert "No such file" in problems[0]


# sentence, jsonio


def test_fresh_sentences_differ_and_hold_no_digits():
    sentences = {fresh_sentence() for _ in range(20)}
    assert len(sentences) > 15
    assert not any(c.isdigit() for s in sentences for c in s)


def test_json_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text() == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match=r"a\.json"):
        write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path) == {"b": 1, "a": "ü"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b"", "line 1, column 1"),
        (b"[1]", "list, expected an object"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    ],
)
def test_broken_json_names_the_path_and_the_position(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(JsonError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(JsonError, match="No such file"):
        read_json(tmp_path / "none.json")
