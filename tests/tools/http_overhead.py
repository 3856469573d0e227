"""What a request over HTTP takes beyond ``generate()``, with the model warm.

    python tests/tools/http_overhead.py DIRECTORY --device cuda -n 20

The directory is one of `start.py`. The server runs in this process, and every utterance's own
wall time is taken from `Voice.speak`; what the client waited longer is the server's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

TEXT = "Good morning, how can I help you today?"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("-n", type=int, default=20)
    given = arguments.parse_args()

    import uvicorn

    from understudy.common.sockets import listen
    from understudy.serve.config import ServerConfig
    from understudy.serve.http import create_app
    from understudy.serve.process import load_voice

    spoken = []

    def load():
        voice = load_voice(config)
        speak = voice.speak

        def watched(*args, **kwargs):
            said = speak(*args, **kwargs)
            spoken.append(said.wall_s)
            return said

        voice.speak = watched
        return voice

    config = ServerConfig.from_dict(
        {
            "bind": "127.0.0.1",
            "port": 0,
            "voices_dir": str(given.directory / "voices"),
            "default_voice": "rehearsal.wav",
            "weights_dir": str(given.directory / "weights"),
            "device": given.device,
            "token_cap": 250,
            "proof_interval_s": 0,
        }
    )
    sock = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(config, load), log_config=None))
    threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    body = json.dumps({"text": TEXT}).encode()
    over, walls = [], []
    for _ in range(given.n + 3):
        spoken.clear()
        request = urllib.request.Request(
            f"{url}/synthesize", body, {"Content-Type": "application/json"}
        )
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as reply:
            reply.read()
        walls.append(time.perf_counter() - began)
        over.append(1000 * (walls[-1] - sum(spoken)))
    over, walls = sorted(over[3:]), walls[3:]
    print(
        json.dumps(
            {
                "n": given.n,
                "overhead_ms": {
                    "p50": round(statistics.median(over), 2),
                    "p95": round(over[int(0.95 * given.n)], 2),
                    "max": round(over[-1], 2),
                },
                "request_s_p50": round(statistics.median(walls), 3),
            }
        )
    )
    server.should_exit = True


if __name__ == "__main__":
    main()
