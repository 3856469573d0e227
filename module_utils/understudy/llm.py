"""Asking the LLM for real completions, and the latency of its answers.

`/v1/models` answers before an engine is ready, and a prefix cache answers a
repeated prompt, so readiness and latency both come from completions whose prompt
starts with a nonce.
"""

from __future__ import annotations

import errno
import http.client
import json
import math
import os
import stat
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

#: Latency has settled when the last five requests lie within a tenth of each other; it is not
#: waited for longer than `SETTLE_S` seconds.
SETTLED, SETTLED_SPREAD, SETTLE_S = 5, 0.1, 15.0

#: The LLM is on the LAN: a proxy that the environment names has no part in it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

PROMPT = "Answer in one short sentence: what is a good way to begin a phone call?"


class LlmError(RuntimeError):
    """No completion; the message names the URL and what was seen."""


def read_key(path: str) -> str:
    """Return the API key in a file of one line, which nobody but its owner may read.

    Raises:
        LlmError: it is not there, is open to others, or holds no key; it names no key.
    """
    path = os.path.expanduser(path)
    try:
        # A pipe in the place of the file is not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="ascii") as file:
            found = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(found):
                raise OSError(errno.EINVAL, "it is no file")
            mode, key = stat.S_IMODE(found), file.read(4096).strip()
    except OSError as error:
        raise LlmError(
            f"the API key {path} cannot be read ({error.strerror}). Next: write it there, "
            "or correct llm_window_api_key_file"
        ) from None
    except ValueError:
        key, mode = "", 0o600
    if mode & 0o077:
        raise LlmError(f"the API key {path} has mode {mode:04o}. Next: chmod 600 {path}")
    if not key or not all("!" <= character <= "~" for character in key):
        raise LlmError(
            f"{path} holds no API key: one line of printable ASCII. Next: write it there"
        )
    return key


def complete(
    url: str, model: str, max_tokens: int, timeout_s: float, api_key_file: str = ""
) -> float:
    """Ask for one completion and return its wall time in seconds.

    Args:
        url: base of the OpenAI-style API, without ``/v1``.
        model: name to ask for.
        max_tokens: fixed length of the answer.
        timeout_s: for connecting and for every read.
        api_key_file: its content is sent as a bearer token; empty for none.

    Raises:
        LlmError: no answer, an error status, or an answer that is no completion.
    """
    address = url.rstrip("/") + "/v1/chat/completions"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": uuid.uuid4().hex + " " + PROMPT}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    began = time.monotonic()
    text = _answer(address, timeout_s, api_key_file, json.dumps(body).encode())
    wall = time.monotonic() - began
    try:
        choice = json.loads(text)["choices"][0]
        answered = choice["message"].get("content") or choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise LlmError(f"{address} answered no completion: {text[:200]!r}") from None
    if not answered:
        raise LlmError(f"{address} answered an empty completion: {text[:200]!r}")
    return wall


def first_model(url: str, timeout_s: float, api_key_file: str = "") -> str:
    """Return the first model that ``/v1/models`` lists.

    Raises:
        LlmError: none is listed, or there is no answer.
    """
    address = url.rstrip("/") + "/v1/models"
    text = _answer(address, timeout_s, api_key_file)
    try:
        return str(json.loads(text)["data"][0]["id"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise LlmError(
            f"{address} lists no model ({text[:200]!r}); name it in llm_window_model"
        ) from None


def _answer(address: str, timeout_s: float, api_key_file: str, body: bytes | None = None) -> str:
    key = read_key(api_key_file) if api_key_file else ""
    try:
        try:
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            if key:  # not to be sent on, should another host be named in a redirection
                request.add_unredirected_header("Authorization", f"Bearer {key}")
            with _OPENER.open(request, timeout=timeout_s) as response:
                return _without(key, response.read())
        except urllib.error.HTTPError as error:
            seen = _without(key, error.read())[:200]
            hint = ""
            if error.code in (401, 403):
                hint = ". Next: the API key in the file that llm_window_api_key_file names"
            raise LlmError(f"{address} answered {error.code}: {seen!r}{hint}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        seen = str(getattr(error, "reason", error)) or type(error).__name__
        raise LlmError(f"{address}: {seen}") from None


def _without(key: str, body: bytes) -> str:
    """Return an answer as text in which the key, should it be repeated there, is left out."""
    text = body.decode("utf-8", "replace")
    return text.replace(key, "***") if key else text


def wait_until_ready(
    url: str,
    model: str | None,
    max_tokens: int,
    wait_s: float,
    request_timeout_s: float,
    api_key_file: str = "",
) -> str:
    """Try until a completion comes back, and return the model's name.

    Raises:
        LlmError: what was seen last, after `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            name = model or first_model(url, request_timeout_s, api_key_file)
            complete(url, name, max_tokens, request_timeout_s, api_key_file)
            return name
        except LlmError as error:
            if time.monotonic() >= deadline:
                waited = f" (waited {wait_s:.0f} s)" if wait_s else ""
                raise LlmError(f"{error}{waited}") from None
        time.sleep(0.5)


def measure(
    ask: Callable[[], float],
    requests: int,
    warmup: int,
    until: str | None = None,
    pause_s: float = 0.0,
) -> dict[str, Any]:
    """Measure the latency of completions.

    Args:
        ask: one request; its wall time in seconds, or `LlmError`.
        requests: how many are measured, at most where `until` is given.
        warmup: requests before, not counted; more until latency has settled; 0 for none.
        until: go on until this file exists.
        pause_s: between two requests.

    Returns:
        The contract's latency object.
    """
    warmup = settle(ask, warmup) if warmup else 0
    samples: list[float] = []
    failures = 0
    while len(samples) + failures < requests and not (until and os.path.exists(until)):
        try:
            samples.append(ask() * 1000)
        except LlmError:
            failures += 1
        time.sleep(pause_s)
    return latency(samples, warmup, failures)


def settle(ask: Callable[[], float], at_least: int) -> int:
    """Ask until the last answers took about the same time, and return how many that were.

    An engine that has just started is slow at first, and a host that was busy for a while
    still is; what counts is how it answers afterwards.

    Args:
        ask: one request, as for `measure`.
        at_least: requests in any case.
    """
    recent: list[float] = []
    count, deadline = 0, time.monotonic() + SETTLE_S
    while True:
        count += 1
        try:
            recent = [*recent, ask()][-SETTLED:]
        except LlmError:
            if time.monotonic() >= deadline:
                raise
            recent = []
            time.sleep(0.2)
            continue
        spread = (max(recent) - min(recent)) / (quantile(recent, 0.5) or 1.0)
        settled = len(recent) == SETTLED and spread <= SETTLED_SPREAD
        if count >= at_least and (settled or time.monotonic() >= deadline):
            return count


def latency(samples_ms: list[float], warmup: int, failures: int) -> dict[str, Any]:
    """Return the contract's latency object of samples in milliseconds."""
    n = len(samples_ms)
    mean = sum(samples_ms) / n if n else None
    cv = None
    if mean and n > 1:
        cv = math.sqrt(sum((x - mean) ** 2 for x in samples_ms) / (n - 1)) / mean
    return {
        "n": n,
        "warmup": warmup,
        "failures": failures,
        "min_ms": min(samples_ms) if n else None,
        "mean_ms": mean,
        "p50_ms": quantile(samples_ms, 0.5),
        "p95_ms": quantile(samples_ms, 0.95),
        "max_ms": max(samples_ms) if n else None,
        "cv": cv,
        "samples_ms": [round(x, 3) for x in samples_ms],
    }


def quantile(values: list[float], q: float) -> float | None:
    """Return the q-quantile with linear interpolation (Hyndman and Fan's type 7), or None."""
    if not values:
        return None
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
