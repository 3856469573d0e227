"""Many clients at once against a voice server: is every reply the answer to its own request?

    python tests/tools/load.py http://titan:8773 --token-file F --reference samantha.wav \
        --requests 200 --clients 8

Every text is another one. A client that is told 503 comes again after Retry-After. The exit
status is 0 if every request was answered with its own audio in the end, else 1.

Against a real model "its own" means: plausible speech for the number of words, of the announced
length, and not the same as another's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from understudy.audio import pcm, speech_check
from understudy.serve.client import is_rehearsal

WORDS = re.findall(
    r"\w+",
    "the a good morning please call again after noon today number seven order green house "
    "thank you very much for your patience we will open at nine on monday and close at five",
)


@dataclass
class Load:
    """What came of it."""

    requests: int = 0
    spoken: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rss_mb: dict[int, float] = field(default_factory=dict)
    wall_s: float = 0.0

    def summary(self) -> dict[str, object]:
        cuts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else [0.0] * 99
        return {
            "requests": self.requests,
            "spoken": self.spoken,
            "refused": self.refused,
            "wrong": len(self.wrong),
            "lost": len(self.lost),
            "statuses": dict(self.statuses),
            "p50_s": round(cuts[49], 3),
            "p95_s": round(cuts[94], 3),
            "rss_mb": self.rss_mb,
            "wall_s": round(self.wall_s, 1),
        }


def texts(count: int, seed: int) -> list[str]:
    """Different sentences of three to twelve words."""
    generator = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = generator.choices(WORDS, k=generator.randint(3, 12))
        found[" ".join(words).capitalize() + "."] = None
    return list(found)


def plausible(text: str, reply: httpx.Response) -> str | None:
    """What is wrong with the audio of a text, as far as one can tell without knowing it."""
    samples, rehearsal = pcm.pcm16_to_float(reply.content), is_rehearsal(reply.headers)
    found = speech_check.check(samples, pcm.SAMPLE_RATE, text=text, rehearsal=rehearsal)
    return "; ".join(found["problems"]) or None


def run(
    url: str,
    *,
    reference: str,
    requests: int = 200,
    clients: int = 8,
    token: str | None = None,
    path: str = "/synthesize",
    timeout_s: float = 120.0,
    attempts: int = 50,
    judge: Callable[[str, httpx.Response], str | None] = plausible,
    seed: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Load:
    """Ask for so many texts, from so many clients at once."""
    load, lock, heard = Load(requests=requests), threading.Lock(), {}
    headers = {"X-Internal-Token": token} if token else {}
    http = httpx.Client(
        headers=headers,
        timeout=timeout_s,
        trust_env=False,
        limits=httpx.Limits(max_connections=clients),
    )

    def ask(text: str) -> None:
        for _ in range(attempts):
            began = time.perf_counter()
            try:
                reply = http.post(url + path, json={"text": text, "reference_audio": reference})
            except httpx.HTTPError as error:
                with lock:
                    load.lost.append(f"{text}: {type(error).__name__}: {error}")
                return
            with lock:
                load.statuses[reply.status_code] += 1
            if reply.status_code != 503:
                break
            with lock:
                load.refused += 1
            time.sleep(float(reply.headers["Retry-After"]))
        took = time.perf_counter() - began
        problem = None
        if reply.status_code != 200:
            problem = f"status {reply.status_code}: {reply.text[:200]}"
        elif abs(float(reply.headers["X-Audio-Duration"]) - len(reply.content) / 48_000) > 0.02:
            problem = "the announced length is another"
        else:
            problem = judge(text, reply)
        digest = hashlib.sha256(reply.content).hexdigest()
        with lock:
            if reply.status_code == 200:
                load.spoken += 1
                load.seconds.append(took)
                if (other := heard.setdefault(digest, text)) != text:
                    problem = problem or f"the same audio as for {other!r}"
                if load.spoken in (50, 200, requests):
                    load.rss_mb[load.spoken] = rss_mb(http, url)
                    say(f"{load.spoken} spoken, {load.refused} refused, {load.rss_mb}")
            if problem:
                load.wrong.append(f"{text}: {problem}")

    began = time.perf_counter()
    with http, ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, texts(requests, seed)))
    load.wall_s = time.perf_counter() - began
    return load


def rss_mb(http: httpx.Client, url: str) -> float:
    """The server's resident memory in MB, by its own metrics; -1 where it has none."""
    reply = http.get(f"{url}/metrics")
    found = re.search(r"^process_resident_memory_bytes (\S+)", reply.text, re.MULTILINE)
    return round(float(found[1]) / 1e6, 1) if found else -1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--reference", required=True, help="name of a voice file on the server")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--path", default="/synthesize")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=120.0, help="for one reply, in seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    given = parser.parse_args()
    load = run(
        given.url.rstrip("/"),
        reference=given.reference,
        requests=given.requests,
        clients=given.clients,
        path=given.path,
        timeout_s=given.timeout,
        seed=given.seed,
        token=given.token_file.read_text().strip() if given.token_file else None,
        say=lambda line: print(line, file=sys.stderr),
    )
    for line in (*load.wrong, *load.lost):
        print(line, file=sys.stderr)
    print(json.dumps(load.summary(), indent=2))
    return 0 if load.spoken == load.requests and not load.wrong and not load.lost else 1


if __name__ == "__main__":
    sys.exit(main())
