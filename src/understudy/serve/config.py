"""Voice server configuration and validation."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from understudy.model.types import Tuning
from understudy.serve.client import read_token

HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"
OPENAI_PATH = "/v1/audio/speech"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class ConfigError(ValueError):
    """The server cannot be started like this; the message is one line and names the next step."""


@dataclass(frozen=True)
class ServerConfig:
    """The server's configuration; docs/voice-server.md has it as a table.

    Attributes:
        bind: address to listen on.
        port: and port; 0 takes a free one.
        voices_dir: where the voice references are.
        default_voice: name of a file in it, used where a request names none.
        weights_dir: what ``ChatterboxTTS.from_local`` wants.
        synthesis_path: where speech is asked for.
        token_file: holds the token; without one only loopback may be bound.
        device: a torch device.
        threads: CPU threads of torch; None leaves torch's own choice.
        token_cap: speech tokens per piece of text at most; None is upstream's.
        stft_patch: apply the Blackwell patch.
        fast_load: load the model with the shortcuts of `understudy.model.fastload`.
        tuning: used where a request leaves it out.
        queue: requests that may wait while one is spoken.
        deadline_s: a request that is not spoken by then gets a 503.
        proof_interval_s: seconds without a good synthesis until a self-test; 0 for never.
        drain_s: how long accepted requests may still take after a SIGTERM.
        stuck_s: a synthesis that takes longer will not come back.
        max_text: characters of a text.
        max_body_bytes: of a request.
    """

    bind: str
    port: Annotated[int, Field(ge=0, le=65_535)]
    voices_dir: Path
    default_voice: str
    weights_dir: Path = Path()
    synthesis_path: str = "/synthesize"
    token_file: Path | None = None
    device: str = "cpu"
    threads: Count | None = None
    token_cap: Count | None = None
    stft_patch: bool = False
    fast_load: bool = True
    tuning: Tuning = field(default_factory=lambda: Tuning(0.3, 0.3, 0.6))
    queue: Annotated[int, Field(ge=0)] = 8
    deadline_s: Seconds = 30.0
    proof_interval_s: Annotated[float, Field(ge=0.0, le=86_400.0)] = 300.0
    drain_s: Seconds = 30.0
    stuck_s: Seconds = 120.0
    max_text: Count = 2_000
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 65_536

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ServerConfig:
        """Return the config in a JSON document.

        Raises:
            ConfigError: a name is missing or unknown, or a value is out of range.
        """
        names = set(cls.__dataclass_fields__)
        missing = sorted({"bind", "port", "voices_dir", "default_voice"} - set(config))
        unknown = sorted(set(config) - names)
        if missing or unknown:
            raise ConfigError(
                f"server config: missing {missing}, unknown {unknown}; "
                f"there are: {', '.join(cls.__dataclass_fields__)}"
            )
        values = dict(config)
        try:
            if "tuning" in values:
                values["tuning"] = Tuning(**values["tuning"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"server config: tuning: {error}; correct it there") from error
        try:
            settings = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise ConfigError(f"server config: {_first(error)}; correct it there") from error
        for name in ("voices_dir", "weights_dir", "token_file"):
            if (path := getattr(settings, name)) is not None:
                object.__setattr__(settings, name, path.expanduser())
        path = settings.synthesis_path
        if not path.startswith("/") or path in (HEALTH_PATH, METRICS_PATH, OPENAI_PATH):
            raise ConfigError(
                f"server config: synthesis_path is {path!r}; give a path of its own, "
                "such as /synthesize"
            )
        return settings

    def token(self) -> str | None:
        """Return the token in a file that nobody but its owner can read; None for no file.

        Raises:
            ConfigError: others can read it, or it holds no token.
        """
        if self.token_file is None:
            return None
        try:
            mode = stat.S_IMODE(self.token_file.stat().st_mode)
            token = read_token(self.token_file)
        except OSError as error:
            raise ConfigError(
                f"token file {self.token_file}: {error.strerror or error}; "
                "put one word of printable ASCII there"
            ) from error
        except ValueError as error:
            raise ConfigError(f"{error}; put one word of printable ASCII there") from error
        if mode & 0o077:
            raise ConfigError(
                f"token file {self.token_file} can be read by others (mode {mode:04o}); "
                f"chmod 600 {self.token_file}"
            )
        return token


def _first(error: ValidationError) -> str:
    """Return the first of pydantic's errors as ``where: what``."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(part for part in map(str, first["loc"]))
    return f"{where}: {first['msg']}"
