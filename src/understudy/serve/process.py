"""The voice server as a process: its socket, its signals, and what systemd is told."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from understudy.audio import speech_check
from understudy.common.sockets import ListenError, is_loopback, listen
from understudy.model import weights
from understudy.serve import connections
from understudy.serve.config import ConfigError, ServerConfig
from understudy.serve.http import create_app
from understudy.serve.log_limit import LogLimit
from understudy.serve.sd_notify import notify, watchdog_s
from understudy.serve.synthesis import LoadedVoice
from understudy.serve.voice_files import find_voice
from understudy.serve.worker import VoiceWorker

#: Seconds between two reports to systemd, and how long the synthesis thread may take to end.
TICK_S, THREAD_END_S = 0.5, 5.0

#: For how long clients may take their answers when only a new process can speak, in seconds.
FATAL_END_S = 3

log = logging.getLogger("understudy.server")


def run(config: Mapping[str, Any], load: Callable[[], LoadedVoice] | None = None) -> int:
    """Serve until told to stop.

    Args:
        config: the JSON document; see `ServerConfig`.
        load: returns the loaded voice; the real model when None.

    Returns:
        The exit status: 0 after a signal, 1 with one line on stderr when the server
        could not be started or the model not be loaded.
    """
    try:
        settings = ServerConfig.from_dict(config)
        token = settings.token()
        if token is None and not is_loopback(settings.bind):
            raise ConfigError(
                f"without a token only loopback may be bound, not {settings.bind}; "
                "set token_file, or bind 127.0.0.1"
            )
        sock = listen(settings.bind, settings.port)
        with sock:
            _check_files(settings, check_weights=load is None)
            return _serve(settings, sock, load or (lambda: load_voice(settings)), token)
    except (ConfigError, ListenError) as error:
        return _give_up(str(error))


def _serve(
    settings: ServerConfig, sock: socket.socket, load: Callable[[], LoadedVoice], token: str | None
) -> int:
    """Serve on a socket until told to stop; return the exit status."""
    handler = logging.StreamHandler()
    handler.addFilter(LogLimit())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[handler]
    )
    # What libraries tell their own users, some of it with every synthesis.
    warnings.simplefilter("ignore", FutureWarning)
    log.info("listening on %s port %d", settings.bind, sock.getsockname()[1])
    app = create_app(settings, load, token)
    worker: VoiceWorker = app.state.worker
    server = Server(
        connections.uvicorn_config(
            app,
            connections.possible(settings.max_connections),
            # A backstop: the keeper answers everybody before that.
            timeout_graceful_shutdown=math.ceil(settings.drain_s) + 5,
        ),
        worker,
        settings.drain_s,
    )
    worker.on_fatal = server.end
    server.run(sockets=[sock])
    for sig in (signal.SIGINT, signal.SIGTERM):  # everybody is answered; seconds are left to end in
        signal.signal(sig, signal.SIG_IGN)
    worker.stop(wait_s=THREAD_END_S)
    status = 0
    if worker.fatal:
        after = f"next: check {settings.weights_dir} and device {settings.device}"
        if worker.synthesizer.voice is not None:
            after = "ended, so that the service manager starts it anew"
        status = _give_up(f"{worker.fatal}; {after}")
    if worker.running:
        log.warning("the synthesis thread does not end; leaving it behind")
    if worker.running or worker.fatal:
        # Python would wait for, or crash into, a thread that is inside the model, and the
        # libraries of a device that is lost may hang or abort while they are unloaded.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)
    return status


class Server(uvicorn.Server):
    """uvicorn, which ends with status 0 when it was told to stop, and keeps systemd informed.

    Args:
        config: uvicorn's.
        worker: whose state is told.
        drain_s: how long accepted requests may still take.
    """

    def __init__(self, config: uvicorn.Config, worker: VoiceWorker, drain_s: float) -> None:
        super().__init__(config)
        self._worker, self._drain_s = worker, drain_s
        self._told_to_stop = False

    def end(self) -> None:
        """Stop accepting, finish what was accepted, and end; safe on any thread."""
        if self._worker.fatal:
            self.config.timeout_graceful_shutdown = FATAL_END_S
        if self._worker.queue.draining_since is None:
            self._worker.queue.draining_since = time.monotonic()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End; after a second signal, what was accepted is not spoken any more but refused.

        uvicorn's own would cut the connections, and raise the signal again.
        """
        notify("STOPPING=1", "STATUS=stopping: finishing what was accepted")
        if self._told_to_stop:
            self._drain_s = 0.0
        self._told_to_stop = True
        self.end()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept; uvicorn's own uses one number for the kernel's queue and for a batch."""
        await super().startup(sockets)
        for sock in sockets or []:
            sock.listen(connections.BACKLOG)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, with the keeper beside it."""
        keeper = asyncio.create_task(self._keep())
        try:
            await super().serve(sockets)
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def _keep(self) -> None:
        """Tell systemd how the voice is, and end the draining in time."""
        worker, bound = self._worker, watchdog_s()
        tick = min(TICK_S, bound / 2) if bound else TICK_S
        told: str | None = None
        was_ready = False
        while True:
            state, reasons = worker.judge()
            since = worker.queue.draining_since
            if since is None:
                status = ": ".join([state, "; ".join(reasons)] if reasons else [state])
                lines = [f"STATUS={status}"] if status != told else []
                if not was_ready and state in ("ready", "degraded"):
                    lines.append("READY=1")
                    was_ready = True
                if lines:
                    notify(*lines)
                told = status
            elif time.monotonic() - since > self._drain_s:
                worker.stop()
            if since is None and worker.running and not worker.alive:
                worker.end((reasons or worker.judge()[1] or ["the synthesis thread hangs"])[0])
            if bound and worker.alive:
                notify("WATCHDOG=1")
            await asyncio.sleep(tick)


def _check_files(config: ServerConfig, *, check_weights: bool) -> None:
    """Find out what is missing before a minute is spent on loading.

    Raises:
        ConfigError: names the file and the next step.
    """
    try:
        path = find_voice(config.voices_dir, config.default_voice)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"default_voice: {error.args[0]}; put the recording into {config.voices_dir}"
        ) from error
    if fault := speech_check.reference_fault(path):
        raise ConfigError(f"default_voice: {fault}; put the recording there again")
    for problem in speech_check.check_reference(path)[
        1
    ]:  # not as it should be, but it can be spoken with
        log.warning("%s", problem)
    if check_weights and (damaged := weights.shape_problems(config.weights_dir)):
        raise ConfigError(
            f"weights: {'; '.join(damaged)}; fetch them again: understudy weights --config FILE"
        )


def load_voice(config: ServerConfig) -> LoadedVoice:
    """Return the real model, loaded from the config's weights."""
    from understudy.model import voice

    return voice.Voice.from_config(dict(config))


def _give_up(reason: str) -> int:
    """Say in one line, to the operator and to systemd, why there is no voice."""
    print(f"understudy serve: {reason}", file=sys.stderr)
    notify(f"STATUS={reason}")
    return 1
