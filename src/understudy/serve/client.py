"""Asks a voice server for speech, and says exactly what came instead when none did.

The contract is the primary's: ``POST`` JSON ``{text, reference_audio, exaggeration,
cfg_weight, temperature}`` with an ``X-Internal-Token``; the reply is raw little-endian
16-bit PCM, 24 kHz, mono, with ``X-Sample-Rate`` and ``X-Channels``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from understudy.audio.pcm import SAMPLE_RATE, Samples, pcm16_to_float
from understudy.common import sockets
from understudy.common.files import read_bytes
from understudy.common.urls import endpoint
from understudy.model.types import Tuning

TOKEN_HEADER = "X-Internal-Token"

#: Of a reply: ``true`` where the server speaks with a rehearsal's random weights.
REHEARSAL_HEADER = "X-Understudy-Rehearsal"
SHOWN_CHARACTERS = 200
MAX_REPLY_BYTES = 32 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0

_TEXT_TYPES = ("text/", "application/json", "application/problem+json", "application/xml")


class VoiceServerError(Exception):
    """A voice server did not do what was asked.

    Attributes:
        url: what was called.
        trying: what was being tried.
        seen: what came instead; never holds the token.
        status: the HTTP status, None when there was no reply.
        reached: False when nothing answered in time at that address.
    """

    def __init__(
        self, url: str, trying: str, seen: str, *, status: int | None = None, reached: bool = True
    ) -> None:
        super().__init__(f"{trying} at {url}: {seen}")
        self.url, self.trying, self.seen = url, trying, seen
        self.status, self.reached = status, reached


@dataclass(frozen=True)
class SpeechReply:
    """A reply with audio in it; whether it is speech is for `understudy.audio.speech_check.check`.

    Attributes:
        samples: float32 [N].
        rate: in Hz.
        wall_s: from sending the request to the last byte, in seconds.
        ttfb_s: from sending the request to the first byte of audio, in seconds.
        headers: of the reply, names in lower case.
        status: of the reply.
    """

    samples: Samples
    rate: int
    wall_s: float
    ttfb_s: float
    headers: dict[str, str]
    status: int

    @property
    def rehearsal(self) -> bool:
        """Whether the server says that its weights are a rehearsal's, which make no speech."""
        return is_rehearsal(self.headers)


def read_token(path: Path | str | None) -> str | None:
    """Return the token in a file, without the line's end; None for no path.

    Raises:
        ValueError: the file cannot be read, is empty, or holds no token for a header.
    """
    if path is None:
        return None
    try:
        token = read_bytes(Path(path).expanduser(), 4096, links=True).decode("utf-8").strip()
    except OSError as error:
        raise ValueError(f"token file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ValueError(f"token file {path}: not a text file") from None
    if not token:
        raise ValueError(f"token file {path} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"token file {path}: expected one word of printable ASCII")
    return token


class _Transport(httpx.HTTPTransport):
    """httpx tries a host's addresses one by one; this one asks at the address that answers."""

    def __init__(self, timeout_s: float) -> None:
        # A voice server is in the LAN: no proxy from the environment stands between.
        super().__init__(trust_env=False)
        self._timeout_s, self._address = timeout_s, ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, with the name that was given in the ``Host`` header and in TLS."""
        host, port = endpoint(str(request.url))
        try:
            self._address = self._address or self._answering(host, port)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from None
        request.extensions |= {"sni_hostname": host}
        request.url = request.url.copy_with(host=self._address)
        try:
            return super().handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._address = ""  # the next request asks another one
            raise

    def _answering(self, host: str, port: int) -> str:
        """Return the only address of a host, or the one of several that accepts a connection.

        Raises:
            OSError: see `sockets.connect`.
        """
        found = sockets.lookup(host, port, self._timeout_s)
        if len(found) == 1:
            return sockets.numeric(found[0][1])
        with sockets.connect(host, port, self._timeout_s) as sock:
            return sockets.numeric(sock.getpeername())


class VoiceClient:
    """One voice server. Use as a context manager, or `close` it.

    Args:
        url: scheme, host and port.
        path: where speech is asked for.
        health_path: where the state is asked for.
        token: sent as ``X-Internal-Token``; never shown.
        timeout_s: for a whole reply, in seconds.
    """

    def __init__(
        self,
        url: str,
        path: str = "/synthesize",
        health_path: str = "/health",
        token: str | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.speech_url = f"{self.url}/{path.lstrip('/')}"
        self.health_url = f"{self.url}/{health_path.lstrip('/')}"
        self.timeout_s = timeout_s
        self._token = token
        connect_s = min(CONNECT_TIMEOUT_S, timeout_s)
        self._http = httpx.Client(
            headers={TOKEN_HEADER: token} if token else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_s),
            transport=_Transport(connect_s),
            trust_env=False,
        )

    def __repr__(self) -> str:
        return f"VoiceClient({self.speech_url!r})"

    def __enter__(self) -> VoiceClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Return what the server says about its state; ``{"body": …}`` when that is no object.

        Raises:
            VoiceServerError: no answer, a status other than 200, or a web page.
        """
        trying = "asking for health"
        with self._reply("GET", self.health_url, trying) as (reply, body, _):
            kind = reply.headers.get("content-type", "")
            if _is_html(kind, body):
                raise self._error(self.health_url, trying, reply, body)
            text = body.decode("utf-8", errors="replace")
            try:
                answer = json.loads(text)
            except ValueError:
                answer = text[:SHOWN_CHARACTERS]
            return answer if isinstance(answer, dict) else {"body": answer}

    def speak(self, text: str, reference_audio: str, tuning: Tuning) -> SpeechReply:
        """Return the speech of a text.

        Args:
            text: to be said.
            reference_audio: name of a file in the server's own voice directory.
            tuning: how to say it.

        Raises:
            VoiceServerError: anything but a 200 with mono 16-bit PCM at 24 kHz.
        """
        trying = "asking for speech"
        request = {"text": text, "reference_audio": reference_audio, **asdict(tuning)}
        began = time.perf_counter()
        with self._reply("POST", self.speech_url, trying, json=request) as (reply, body, first):
            wall = time.perf_counter() - began
            if is_text(reply.headers, body):
                raise self._error(self.speech_url, trying, reply, body)
            try:
                samples = samples_of(reply.headers, body)
            except ValueError as error:
                seen = self._redact(str(error))
                status = reply.status_code
                raise VoiceServerError(self.speech_url, trying, seen, status=status) from error
            return SpeechReply(
                samples=samples,
                rate=SAMPLE_RATE,
                wall_s=wall,
                ttfb_s=first - began,
                headers=dict(reply.headers),
                status=reply.status_code,
            )

    @contextmanager
    def _reply(
        self, method: str, url: str, trying: str, **options: Any
    ) -> Iterator[tuple[httpx.Response, bytes, float]]:
        """Yield a 200 with its whole body and the time of its first byte.

        Raises:
            VoiceServerError: no answer, or another status.
        """

        def fail(seen: str, *, reached: bool) -> VoiceServerError:
            return VoiceServerError(url, trying, self._redact(seen), reached=reached)

        try:
            endpoint(url)
        except ValueError as error:
            raise fail(str(error), reached=False) from None
        late = f"no complete reply within {self.timeout_s:g} s"
        deadline = time.perf_counter() + self.timeout_s
        body, first = bytearray(), 0.0
        try:
            with self._http.stream(method, url, **options) as reply:
                for chunk in reply.iter_bytes():
                    first = first or time.perf_counter()
                    body += chunk
                    if len(body) > MAX_REPLY_BYTES:
                        raise fail(f"more than {MAX_REPLY_BYTES} bytes", reached=True)
                    if time.perf_counter() > deadline:
                        raise fail(late, reached=True)
        except httpx.ConnectTimeout as error:
            raise fail("no connection: timed out", reached=False) from error
        except httpx.ConnectError as error:
            raise fail(f"no connection: {_last_words(error)}", reached=False) from error
        except httpx.TimeoutException as error:
            raise fail(late, reached=False) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            seen = f"{type(error).__name__}: {error}"
            raise fail(f"the reply broke off: {seen}", reached=True) from error
        if reply.status_code != httpx.codes.OK:
            raise self._error(url, trying, reply, bytes(body))
        yield reply, bytes(body), first or time.perf_counter()

    def _error(self, url: str, trying: str, reply: httpx.Response, body: bytes) -> VoiceServerError:
        """Return the error for a reply that is not what was asked for."""
        kind = reply.headers.get("content-type", "no content type")
        what = "a web page" if _is_html(kind, body) else f"{len(body)} bytes of {kind}"
        begins = " ".join(body[: 4 * SHOWN_CHARACTERS].decode("utf-8", errors="replace").split())
        shown = self._redact(begins)[:SHOWN_CHARACTERS]
        seen = f"status {reply.status_code}, {what}: {shown}"
        return VoiceServerError(url, trying, seen, status=reply.status_code)

    def _redact(self, text: str) -> str:
        """Return a text without the token, should a server repeat it."""
        return text.replace(self._token, "…") if self._token else text


def _is_html(content_type: str, body: bytes) -> bool:
    """Return whether a reply is a web page, whatever it calls itself."""
    head = body[:200].lstrip().lower()
    return "html" in content_type or head.startswith((b"<!doctype html", b"<html"))


def is_text(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a reply is text: PCM of more than a few samples never looks like it."""
    kind, head = headers.get("content-type", ""), body[:SHOWN_CHARACTERS]
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return kind.startswith(_TEXT_TYPES) or _is_html(kind, body) or (len(head) >= 16 and printable)


def is_rehearsal(headers: Mapping[str, str]) -> bool:
    """Return whether a reply, by its headers with names in lower case, is a rehearsal's."""
    return headers.get(REHEARSAL_HEADER.lower()) == "true"


def samples_of(headers: Mapping[str, str], body: bytes) -> Samples:
    """Return the samples of a reply with status 200, float32 [N] at `SAMPLE_RATE`.

    Args:
        headers: with names in lower case; one that is absent is taken as what is expected.
        body: 16-bit PCM, mono.

    Raises:
        ValueError: it is something else; the message says what.
    """
    for name, expected in (("X-Sample-Rate", SAMPLE_RATE), ("X-Channels", 1)):
        value = headers.get(name.lower(), str(expected))
        if value.strip() != str(expected):
            raise ValueError(f"{name} is {value!r}, expected {expected}")
    wrong = _not_pcm(body)
    if wrong:
        raise ValueError(wrong)
    return pcm16_to_float(body)


def _not_pcm(body: bytes) -> str | None:
    """Return in which way a body cannot be 16-bit PCM, or None."""
    if not body:
        return "status 200, and not one byte of audio"
    if body[:4] in (b"RIFF", b"OggS", b"fLaC") or body[:3] == b"ID3":
        return f"a sound file ({body[:4]!r}…) where raw PCM was expected"
    if len(body) % 2:
        return f"{len(body)} bytes: an odd number is not 16-bit PCM; the reply was cut short"
    return None


def _last_words(error: Exception) -> str:
    """Return what the system said at the bottom of a chain of exceptions."""
    cause: BaseException = error
    while (below := cause.__cause__ or cause.__context__) is not None:
        cause = below
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)
