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
    description: How long to try again where nothing answers or the server is busy, in seconds.
    type: float
    default: 15
  timeout_s:
    description: For one reply, in seconds.
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
- name: Hear the voice through the client's own URL
  tts_say:
    file: ~/voice-agent.env
    key: CHATTERBOX_URL
    reference_audio: samantha.wav
    tuning: {cfg_weight: 0.3, exaggeration: 0.3, temperature: 0.6}
"""

RETURN = r"""
url:
  description: What the client is set to.
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
"""

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy.route import RouteError, get

TRY_S = 0.5
MAX_BYTES = 16 * 1024 * 1024
HINTS = {
    401: ", the token that the client sends is not the server's",
    403: ", the token that the client sends is not the server's",
    404: ", the server lacks that path or voice",
}


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a reply like any other: the token is for this server alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


class NoReply(Exception):
    """No reply with status 200; `again` says whether waiting may help."""

    def __init__(self, seen: str, *, again: bool) -> None:
        super().__init__(seen)
        self.again = again


def read(path: str) -> str:
    path = os.path.expanduser(path)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise RouteError("file", f"{path}: {getattr(error, 'strerror', None) or error}") from error


def settings(p: dict[str, Any]) -> tuple[str, str | None]:
    """Return the URL and the token, as the client has them."""
    text = read(p["file"])
    url = get(text, p["key"])
    if url is None:
        raise RouteError("file", f"{p['file']} has no line {p['key']}=…")
    token = get(text, p["token_key"]) if p["token_key"] else None
    if token is None and p["token_file"]:
        token = read(p["token_file"]).strip()
    return url.rstrip("/"), token


def without(token: str | None, text: str) -> str:
    """Return what a server sent, without the token that it may repeat."""
    return text.replace(token, "(token)") if token else text


def ask(p: dict[str, Any], url: str, token: str | None) -> tuple[bytes, dict[str, str]]:
    """Return the body of a reply with status 200, and its headers with names in lower case."""
    body = {"text": p["text"], "reference_audio": p["reference_audio"], **p["tuning"]}
    headers = {"Content-Type": "application/json"}
    if token:
        headers["X-Internal-Token"] = token
    request = urllib.request.Request(url + p["path"], json.dumps(body).encode(), headers)
    try:
        with OPENER.open(request, timeout=p["timeout_s"]) as reply:
            headers = {k.lower(): without(token, v) for k, v in reply.headers.items()}
            return reply.read(MAX_BYTES), headers
    except urllib.error.HTTPError as error:
        seen = " ".join(error.read(500).decode(errors="replace").split())
        if error.headers.get("location"):
            seen = f"to {error.headers['location']}, which is not followed; {seen}"
        seen = without(token, seen)[:200]
        hint = HINTS.get(error.code, "")
        raise NoReply(f"status {error.code}{hint}: {seen}", again=error.code == 503) from error
    except (OSError, http.client.HTTPException) as error:
        raise NoReply(f"{getattr(error, 'reason', None) or error}", again=True) from error


def main() -> None:
    string = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
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
    p, url = module.params, None
    deadline = time.monotonic() + p["wait_s"]
    try:
        url, token = settings(p)
        while True:
            began = time.monotonic()
            try:
                body, headers = ask(p, url, token)
            except NoReply as error:
                if not error.again or time.monotonic() >= deadline:
                    raise
                time.sleep(TRY_S)
            else:
                break
    except (RouteError, NoReply) as error:
        module.fail_json(msg=f"{url}: {error}" if url else str(error), url=url)
    module.exit_json(
        changed=False,
        url=url,
        wall_s=time.monotonic() - began,
        headers=headers,
        body=base64.b64encode(body).decode(),
    )


if __name__ == "__main__":
    main()
