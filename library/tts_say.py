#!/usr/bin/python
"""Ask the voice server that a client is set to for a sentence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_say
short_description: Ask the voice server that a client is set to for a sentence
description:
  - Reads the URL and the token where the client reads them, and asks from the client's own host,
    so that what is heard is what its callers hear.
  - An action plugin of the same name makes up a fresh sentence and checks the reply on the control
    node; this module alone returns the reply as it came.
options:
  file:
    description: The client's environment file; C(~) is the remote user's home.
    type: str
    required: true
  key:
    description: The key in it that holds the voice server's URL.
    type: str
    required: true
  url:
    description: Another server to ask, with the client's token; the one in the file where empty.
    type: str
    default: ""
  token_key:
    description: The key in it that holds the token; empty where it is not there.
    type: str
    default: ""
  token_file:
    description: A file on the client with the token; empty for none.
    type: str
    default: ""
  path:
    description: Path of the server's POST.
    type: str
    default: /synthesize
  reference_audio:
    description: The voice, as the client names it.
    type: str
    required: true
  tuning:
    description: C(cfg_weight), C(exaggeration) and C(temperature).
    type: dict
    required: true
  text:
    description: What to say; the action plugin makes one up.
    type: str
  wait_s:
    description:
      - How long to ask again where nothing answers or the server is busy, in seconds.
      - A C(Retry-After) is waited for, and not longer than this; the last request is at its end.
    type: float
    default: 15
  timeout_s:
    description: For one whole reply, in seconds; so the module ends after O(wait_s) and this.
    type: float
    default: 60
  wav:
    description: File on the control node for what was heard; the action plugin writes it.
    type: path
attributes:
  check_mode:
    support: full
    description: It only asks.
  diff_mode:
    support: none
    description: It only asks.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Verify the voice through the client's own URL
  tts_say:
    file: ~/voice-agent.env
    key: CHATTERBOX_URL
    reference_audio: samantha.wav
    tuning: {cfg_weight: 0.3, exaggeration: 0.3, temperature: 0.6}
"""

RETURN = r"""
url:
  description: What the client is set to, without user, password and query.
  returned: when it could be read
  type: str
wall_s:
  description: From asking to the last byte, of the request that was answered, in seconds.
  returned: success
  type: float
audio:
  description: What C(understudy.audio.speech_check.check) found; from the action plugin.
  returned: success
  type: dict
rehearsal:
  description: >-
    Whether the server says that its weights are a rehearsal's, so that it need not be speech; from
    the action plugin.
  returned: success
  type: bool
"""

import base64
import json
import os
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import http_request
from ansible.module_utils.understudy.envfile import EnvFileError, find, public

TRY_S = 0.5
MAX_BYTES = 16 * 1024 * 1024
#: A server with one of these statuses may speak later.
LATER = (429, 503)
HINTS = {
    401: ", the token that the client sends is not the server's",
    403: ", the token that the client sends is not the server's",
    404: ", the server lacks that path or voice",
}


class Settings(NamedTuple):
    """What the client sends, and where: ``shown`` is the URL without what may be secret."""

    url: str
    shown: str
    headers: dict[str, str]
    secrets: list[str]

    def hide(self, text: str) -> str:
        """Return what a server sent, without the secrets that it may repeat."""
        for secret in self.secrets:
            text = text.replace(secret, "(secret)")
        return text


class NoSpeech(Exception):
    """No reply with status 200.

    Attributes:
        kind: a short name of what was seen, the same each time.
        wait_s: after so many seconds it may be asked again; None for never.
    """

    def __init__(self, kind: str, seen: str, wait_s: float | None) -> None:
        super().__init__(seen)
        self.kind, self.wait_s = kind, wait_s


def read(path: str) -> bytes:
    path = os.path.expanduser(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnvFileError(f"{path}: {error.strerror}") from error


def settings(p: dict[str, Any]) -> Settings:
    """Return what the client sends, as it has it.

    Raises:
        EnvFileError: a file cannot be read, or not with certainty.
    """
    data = read(p["file"])
    line = find(data, p["key"])
    there = find(data, p["token_key"]) if p["token_key"] else None
    try:
        shown = line.url() if line else ""
        if not line or not shown:
            raise EnvFileError(f"there is no line {p['key']}=… with a URL")
        token = there.text() if there else ""
    except EnvFileError as error:
        raise EnvFileError(f"{p['file']}: {error}") from error
    if not there and p["token_file"]:
        token = read(p["token_file"]).decode("utf-8-sig", "replace").strip()
    parts, shown = urlsplit(p["url"] or line.text()), public(p["url"]) or shown
    query = f"?{parts.query}" if parts.query else ""
    headers = {"Content-Type": "application/json"}
    user = parts.netloc.rpartition("@")[0]
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
    if token:
        headers["X-Internal-Token"] = token
    secrets = [text for text in (token, user, parts.password, parts.query) if text]
    return Settings(f"{shown}{p['path']}{query}", shown, headers, secrets)


def ask(p: dict[str, Any], to: Settings) -> tuple[bytes, dict[str, str]]:
    """Return the body of a reply with status 200, and its headers with names in lower case."""
    body = {"text": p["text"], "reference_audio": p["reference_audio"], **p["tuning"]}
    try:
        reply = http_request.ask(
            to.url, p["timeout_s"], json.dumps(body).encode(), to.headers, MAX_BYTES
        )
    except http_request.NoReply as error:
        raise NoSpeech(to.hide(str(error)), to.hide(str(error)), TRY_S) from error
    headers = {name: to.hide(value) for name, value in reply.headers.items()}
    if reply.status == 200:
        return reply.body, headers
    seen = " ".join(reply.body[:500].decode(errors="replace").split())
    if "location" in headers:
        seen = f"to {headers['location']}, which is not followed; {seen}"
    kind = f"status {reply.status}"
    wait_s = max(TRY_S, retry_after(headers)) if reply.status in LATER else None
    raise NoSpeech(kind, f"{kind}{HINTS.get(reply.status, '')}: {to.hide(seen)[:200]}", wait_s)


def retry_after(headers: dict[str, str]) -> float:
    """Return for how many seconds a server asks to be left alone; 0 where it does not say."""
    wanted = headers.get("retry-after", "")
    if wanted.isdecimal():
        return float(wanted)
    try:
        until = parsedate_to_datetime(wanted).timestamp()
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else None
        return until - (time.time() if now is None else now)
    except (TypeError, ValueError, IndexError):
        return 0.0


def hear(p: dict[str, Any], to: Settings) -> tuple[bytes, dict[str, str], float]:
    """Ask until there is speech or the time is over; return `ask`'s, and how long it took.

    Raises:
        NoSpeech: there was none; everything that was seen instead.
    """
    began = time.monotonic()
    seen: dict[str, tuple[int, str]] = {}
    while True:
        asked = time.monotonic()
        try:
            body, headers = ask(p, to)
            return body, headers, time.monotonic() - asked
        except NoSpeech as error:
            seen[error.kind] = (seen.get(error.kind, (0, ""))[0] + 1, str(error))
            now = time.monotonic()
            left = p["wait_s"] - (now - began)
            if error.wait_s is None or left <= 0:
                raise NoSpeech("", summary(seen, now - began), None) from error
            time.sleep(min(error.wait_s, left))


def summary(seen: dict[str, tuple[int, str]], seconds: float) -> str:
    """Return what was seen instead of speech, how often, and in how many seconds."""
    if sum(count for count, _ in seen.values()) == 1:
        return next(text for _, text in seen.values())
    rows = [
        f"{text} ({f'{count} times' if count > 1 else 'once'})" for count, text in seen.values()
    ]
    return f"{', '.join(rows)} in {seconds:.0f} s"


def main() -> None:
    string = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "url": string,
            "token_key": {**string, "no_log": False},
            "token_file": {**string, "no_log": False},
            "path": {"type": "str", "default": "/synthesize"},
            "reference_audio": {"type": "str", "required": True},
            "tuning": {"type": "dict", "required": True},
            "text": {"type": "str"},
            "wait_s": {"type": "float", "default": 15},
            "timeout_s": {"type": "float", "default": 60},
            "wav": {"type": "path"},
        },
        supports_check_mode=True,
    )
    p, shown = module.params, None
    try:
        to = settings(p)
        shown = to.shown
        body, headers, wall_s = hear(p, to)
    except (EnvFileError, NoSpeech) as error:
        module.fail_json(msg=f"{shown}: {error}" if shown else str(error), url=shown)
    module.exit_json(
        changed=False,
        url=shown,
        wall_s=wall_s,
        headers=headers,
        body=base64.b64encode(body).decode(),
    )


if __name__ == "__main__":
    main()
