"""The module `tts_say` asks from the client; the audio check runs on the control node."""

from __future__ import annotations

import base64
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Here, since Ansible loads a plugin once, before it forks a worker for each host.
try:
    from understudy.audio.pcm import SAMPLE_RATE, write_wav
    from understudy.audio.speech_check import check
    from understudy.serve.canary import fresh_sentence
    from understudy.serve.client import is_rehearsal, is_text, samples_of
except ImportError as error:
    missing: ImportError | None = error
else:
    missing = None


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if missing:
            raise AnsibleActionFail(
                f"control node: {missing}. Next: make control, then . .venv/bin/activate"
            )
        args = {"text": fresh_sentence(), **self._task.args}
        result: dict[str, Any] = self._execute_module("tts_say", args, task_vars=task_vars)
        if "body" not in result:
            return result
        body, headers = base64.b64decode(result.pop("body")), result.pop("headers")
        try:
            if is_text(headers, body):
                kind = headers.get("content-type") or "text"
                raise ValueError(f"{len(body)} bytes of {kind} where samples were expected")
            samples = samples_of(headers, body)
        except ValueError as error:
            return {
                "failed": True,
                "changed": False,
                "url": result["url"],
                "msg": f"{result['url']}: {error}",
            }
        rehearsal = is_rehearsal(headers)
        found = check(samples, SAMPLE_RATE, text=args["text"], rehearsal=rehearsal, loudness=False)
        if rehearsal:
            text = f"{result['url']} speaks with a rehearsal's weights: not judged as speech"
            Display().display(f"    {text}")
        wav = args.get("wav")
        try:
            if wav:
                write_wav(wav, samples)
        except OSError as error:  # a full disk must not undo a switch
            Display().warning(f"control node: {wav} was not kept: {error}; the voice was heard")
            wav = None
        result |= {"at": time.time(), "audio": found, "text": args["text"], "wav": wav}
        result["rehearsal"] = rehearsal
        if found["problems"]:
            result |= {"failed": True, "msg": f"{result['url']}: {'; '.join(found['problems'])}"}
        return result
