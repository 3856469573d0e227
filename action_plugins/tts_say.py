"""The module `tts_say`, which asks from the client; the ear is here, on the control node."""

from __future__ import annotations

import base64
import time

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Here, since Ansible loads a plugin once, before it forks a worker for each host.
try:
    from understudy.audio.pcm import SAMPLE_RATE, pcm16_to_float, write_wav
    from understudy.audio.speech_check import check
    from understudy.serve.canary import fresh_sentence
except ImportError as error:
    no_ear: ImportError | None = error
else:
    no_ear = None


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        if no_ear:
            raise AnsibleActionFail(
                f"control node: {no_ear}. Next: make control, then . .venv/bin/activate"
            )
        args = {"text": fresh_sentence(), **self._task.args}
        result = self._execute_module("tts_say", args, task_vars=task_vars)
        pcm = result.pop("pcm", None)
        if result.get("failed") or pcm is None:
            return result
        samples = pcm16_to_float(base64.b64decode(pcm))
        heard = check(samples, SAMPLE_RATE, text=args["text"], loudness=False)
        if args.get("wav"):
            write_wav(args["wav"], samples)
        result |= {"at": time.time(), "audio": heard, "text": args["text"], "wav": args.get("wav")}
        if heard["problems"]:
            result |= {"failed": True, "msg": f"{result['url']}: {'; '.join(heard['problems'])}"}
        return result
