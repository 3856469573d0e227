"""The primary's side of the comparison: the same utterances, from its own server.

Runs on the control node. Nothing on the primary is changed: it is asked to speak.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.audio import pcm, speech_check
from understudy.audio.attempt import MAX_RETRIES, Attempt, speak_checked
from understudy.audio.same_recording import same_recording
from understudy.common.jsonio import write_json
from understudy.common.progress import Progress
from understudy.common.stats import summary
from understudy.common.times import utc_now
from understudy.common.urls import endpoint
from understudy.model.types import Tuning
from understudy.serve.canary import fresh_sentence
from understudy.serve.client import SpeechReply, VoiceClient, VoiceServerError, read_token

RETRY_PAUSE_S = 1.0


def run(
    config: Mapping[str, Any], result_path: Path | str, progress: Progress | None = None
) -> dict[str, Any]:
    """Have the primary speak every utterance, and record what came.

    The result is written anew after every utterance, so a killed run leaves what it
    had. An utterance whose audio fails the check, or whose request fails, is asked for
    again. When the server cannot be reached any more, the rest is not tried.

    Args:
        config: ``run_id``, ``host``, ``url``, ``synthesis_path``, ``health_path``,
            ``token_file`` (or null), ``reference_audio``, ``tuning``, ``utterances``
            (id, text, text_sha256), ``out_dir`` (the run directory), and optionally
            ``wav_dir`` (``<host>_baseline``), ``warmup`` (1: untimed requests before),
            ``timeout_s`` (120), ``max_retries`` (2), ``during_bench`` (false).
        result_path: the contract's ``baseline-<host>.json``.
        progress: told of every utterance.

    Returns:
        The result, as written. It is ``failed`` unless every utterance is ok.

    Raises:
        OSError: the result cannot be written.
    """
    result: dict[str, Any] = {
        "schema_version": 1,
        "run_id": config["run_id"],
        "phase": "tts_baseline",
        "host": config["host"],
        "status": "running",
        "started_at": utc_now(),
        "finished_at": None,
        "error": None,
        "url": config["url"],
        "health": None,
        "reference_audio": config["reference_audio"],
        "during_bench": bool(config.get("during_bench", False)),
        "utterances": [],
        "aggregate": _aggregate([]),
        "busy": [],
    }
    write_json(result_path, result)
    work = _Baseline(config, result, Path(result_path), progress or Progress(None))
    try:
        work.measure()
    except VoiceServerError as error:
        trying = f"{error.trying} at {error.url}"
        result["error"] = work.error(trying, error.seen, _next(error, config))
    except Exception as error:  # the run must end with what is known
        seen = f"{type(error).__name__}: {error}"
        result["error"] = work.error(work.trying, seen, "correct this, then run the bench again")
    result["status"] = "failed" if result["error"] else "ok"
    result["finished_at"] = utc_now()
    write_json(result_path, result)
    return result


def probe(
    config: Mapping[str, Any], earlier: list[tuple[str, pcm.Samples]] | None = None
) -> dict[str, Any]:
    """Find out whether a primary is healthy: it must speak sentences that it never spoke before.

    Each must be speech, and no two replies may be the same recording. A second sentence is asked
    for only after a good reply to the first, so that a dead primary is found dead as quickly.

    Args:
        config: as for `run`, without utterances and directories.
        earlier: the sentences of earlier probes of this server and their replies. One more is asked
            for, compared with them, and added. None asks for two.

    Returns:
        ``{url, healthy, health, spoke, wall_s, audio, busy}`` as in ``preflight.json``, of the last
        sentence, ``rehearsal`` (it says that its weights are a rehearsal's, so that it need not be
        speech), and ``problems``: ``{seen, next}`` for everything that is wrong; none when healthy.
    """
    found: dict[str, Any] = {"url": config["url"], "healthy": False, "health": None}
    found |= {"spoke": False, "wall_s": None, "audio": None, "problems": [], "busy": []}
    found["rehearsal"] = False
    problems: list[dict[str, str]] = found["problems"]

    def add(error: VoiceServerError) -> None:
        problems.append({"seen": str(error), "next": _next(error, config)})

    try:
        server, tuning = _server(config), Tuning(**config["tuning"])
    except (ValueError, TypeError) as error:
        problems.append({"seen": str(error), "next": f"correct the inventory of {config['host']}"})
        return found
    replies = [] if earlier is None else earlier
    with server:
        try:
            found["health"] = server.health()
        except VoiceServerError as error:
            add(error)
            if not error.reached:
                return found
        for _ in range(2 if earlier is None else 1):
            text, began = fresh_sentence(text for text, _ in replies), time.time()
            try:
                spoken = server.speak(text, config["reference_audio"], tuning)
            except VoiceServerError as error:
                add(error)
                found["spoke"] = False
                return found
            finally:
                found["busy"].append({"what": "synthesis", "start": began, "end": time.time()})
            found |= {"wall_s": spoken.wall_s, "rehearsal": spoken.rehearsal}
            found["audio"], wrong = _heard(text, spoken, replies)
            found["spoke"] = not wrong
            problems += [
                {
                    "seen": f"asking for speech at {server.speech_url}: {problem}",
                    "next": f"read the log of the voice server on {config['host']}: "
                    "it answers, but not with speech",
                }
                for problem in wrong
            ]
            if problems:
                return found
            replies.append((text, spoken.samples))
    found["healthy"] = True
    return found


def _heard(
    text: str, spoken: SpeechReply, earlier: list[tuple[str, pcm.Samples]]
) -> tuple[dict[str, Any], list[str]]:
    """Return the measurements of a reply, and what is wrong with it as the speech of a text."""
    audio = speech_check.check(
        spoken.samples, spoken.rate, text=text, rehearsal=spoken.rehearsal, loudness=False
    )
    if audio["problems"]:
        return audio, audio["problems"]
    for other, samples in earlier:
        if same_recording(spoken.samples, samples, spoken.rate, rehearsal=spoken.rehearsal):
            return audio, [f"the same recording for two sentences, {other!r} and {text!r}"]
    return audio, []


class _Baseline:
    """The work of one run.

    Attributes:
        trying: what was begun last, for the error.
    """

    def __init__(
        self, config: Mapping[str, Any], result: dict[str, Any], path: Path, progress: Progress
    ) -> None:
        self._config, self._result, self._path, self._progress = config, result, path, progress
        self._host: str = config["host"]
        self._out = Path(config["out_dir"])
        self._wavs: str = config.get("wav_dir") or f"{self._host}_baseline"
        self._retries = int(config.get("max_retries", MAX_RETRIES))
        self.trying = f"preparing the baseline of {self._host}"

    def error(self, trying: str, seen: str, then: str) -> dict[str, Any]:
        """Return the header's error."""
        where = {"kind": "baseline", "host": self._host}
        return where | {"trying": trying, "seen": seen, "next": then}

    def measure(self) -> None:
        """Warm up, then speak and record every utterance.

        Raises:
            VoiceServerError: the server did not survive the warm-up, or is gone.
        """
        (self._out / self._wavs).mkdir(parents=True, exist_ok=True)
        utterances, tuning = self._config["utterances"], Tuning(**self._config["tuning"])
        with _server(self._config) as server:
            try:
                self._result["health"] = server.health()
            except VoiceServerError as error:
                self._result["health_note"] = str(error)
            for index in range(1, int(self._config.get("warmup", 1)) + 1):
                self.trying = f"warm-up {index} at {server.speech_url}"
                self._warm_up(server, tuning)
            for index, utterance in enumerate(utterances, 1):
                self.trying = f"speaking {utterance['id']} at {server.speech_url}"
                row, last = self._utterance(server, utterance, tuning)
                self._result["utterances"].append(row)
                self._result["aggregate"] = _aggregate(self._result["utterances"])
                write_json(self._path, self._result)
                self._tell(index, len(utterances), row)
                if last is not None and not last.reached:
                    raise last
        bad = [row for row in self._result["utterances"] if not row["ok"]]
        if bad:
            self._result["error"] = self.error(
                f"speaking {len(utterances)} utterances at {server.speech_url}",
                f"{len(bad)} of {len(utterances)} failed; {bad[0]['id']}: {bad[0]['error']}",
                f"read the log of the voice server on {self._host}, then run the bench again",
            )

    def _warm_up(self, server: VoiceClient, tuning: Tuning) -> None:
        """Have one sentence spoken that is neither timed nor kept.

        Raises:
            VoiceServerError: no attempt got an answer.
        """
        for attempt in range(1 + self._retries):
            began = time.time()
            try:
                server.speak(fresh_sentence(), self._config["reference_audio"], tuning)
            except VoiceServerError:
                if attempt == self._retries:
                    raise
                time.sleep(RETRY_PAUSE_S)
            else:
                return
            finally:
                self._busy(began)

    def _utterance(
        self, server: VoiceClient, utterance: Mapping[str, Any], tuning: Tuning
    ) -> tuple[dict[str, Any], VoiceServerError | None]:
        """Return the row of one utterance, and the last error when no reply came."""
        row: dict[str, Any] = {
            "id": utterance["id"],
            "text_sha256": utterance["text_sha256"],
            "ok": False,
            **dict.fromkeys(("wall_s", "ttfb_s", "audio_s", "rtf", "http_status")),
            "retries": [],
            **dict.fromkeys(("wav", "wav_sha256", "audio", "error")),
        }
        wav = self._out / self._wavs / f"{utterance['id']}.wav"
        wav.unlink(missing_ok=True)

        def speak(_: int) -> SpeechReply:
            began = time.time()
            try:
                return server.speak(utterance["text"], self._config["reference_audio"], tuning)
            finally:
                self._busy(began)

        def on_retry(failed: Attempt[SpeechReply]) -> None:
            row["retries"].append({"reason": _reason(failed)})
            if failed.error:
                time.sleep(RETRY_PAUSE_S)

        attempt = speak_checked(
            speak,
            utterance["text"],
            retries=self._retries,
            catch=(VoiceServerError,),
            rehearsal=lambda reply: reply.rehearsal,
            on_retry=on_retry,
        )
        row["error"] = _reason(attempt)
        row["ok"] = row["error"] is None
        if isinstance(attempt.error, VoiceServerError):
            row["http_status"] = attempt.error.status
            return row, attempt.error
        reply = attempt.speech
        assert reply is not None
        pcm.write_wav(wav, reply.samples, reply.rate)
        row.update(
            wall_s=reply.wall_s,
            ttfb_s=reply.ttfb_s,
            audio_s=len(reply.samples) / reply.rate,
            rtf=reply.wall_s / (len(reply.samples) / reply.rate),
            http_status=reply.status,
            wav=f"{self._wavs}/{wav.name}",
            wav_sha256=hashlib.sha256(wav.read_bytes()).hexdigest(),
            audio=attempt.audio,
        )
        return row, None

    def _busy(self, began: float) -> None:
        self._result["busy"].append({"what": "synthesis", "start": began, "end": time.time()})

    def _tell(self, index: int, n: int, row: Mapping[str, Any]) -> None:
        figure = f"RTF {row['rtf']:.2f}" if row["ok"] else str(row["error"])
        again = f"  ({len(row['retries'])} retries)" if row["retries"] else ""
        self._progress.write(
            host=self._host,
            phase="baseline",
            index=index,
            n=n,
            rtf=row["rtf"] if row["ok"] else None,
            text=f"{self._host}  baseline {index}/{n}  {figure}{again}",
        )


def _server(config: Mapping[str, Any]) -> VoiceClient:
    """Return the client a config describes.

    Raises:
        ValueError: the URL is none, or the token file is of no use.
    """
    endpoint(config["url"])
    return VoiceClient(
        config["url"],
        config["synthesis_path"],
        config["health_path"],
        read_token(config.get("token_file")),
        float(config.get("timeout_s", 120)),
    )


def _reason(attempt: Attempt[SpeechReply]) -> str | None:
    """Return why an attempt is unusable, or None."""
    return str(attempt.error) if attempt.error else "; ".join(attempt.problems) or None


def _aggregate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summaries of the utterances that are ok."""
    good = [row for row in rows if row["ok"]]
    return {
        "ok_count": len(good),
        **{name: summary([row[name] for row in good]) for name in ("rtf", "wall_s", "audio_s")},
    }


def _next(error: VoiceServerError, config: Mapping[str, Any]) -> str:
    """Return what to do about an error: a command where there is one."""
    host = config["host"]
    curl = f"curl -i -m 10 {config['url'].rstrip('/')}/{config['health_path'].lstrip('/')}"
    if not error.reached:
        return f"{curl}   # is the voice server on {host} running, and is the port right?"
    if error.status in (401, 403):
        return f"compare the token file of {host} in the inventory with the one its server reads"
    if error.status in (404, 405):
        return (
            f"compare the paths of {host} and the name {config['reference_audio']!r} in the "
            "inventory with what its server has"
        )
    return f"{curl}   # and read the log of the voice server on {host}"
