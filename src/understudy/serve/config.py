"""Voice server configuration and validation."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from understudy.documents.server_config import ServerConfigDocument
from understudy.model.types import Tuning
from understudy.serve.client import read_token

HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"
OPENAI_PATH = "/v1/audio/speech"


class ConfigError(ValueError):
    """The server cannot be started like this; the message is one line and names the next step."""


class ServerConfig(ServerConfigDocument):
    """The server's configuration, and how it is read."""

    @property
    def default_tuning(self) -> Tuning:
        """The tuning of a request that leaves it out."""
        return Tuning(**self.tuning.model_dump())

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ServerConfig:
        """Return the config in a JSON document.

        Raises:
            ConfigError: a name is missing or unknown, or a value is out of range.
        """
        names = set(cls.model_fields)
        missing = sorted({"bind", "port", "voices_dir", "default_voice"} - set(config))
        unknown = sorted(set(config) - names)
        if missing or unknown:
            raise ConfigError(
                f"server config: missing {missing}, unknown {unknown}; "
                f"there are: {', '.join(cls.model_fields)}"
            )
        try:
            settings = cls.model_validate(config)
            _ = settings.default_tuning
        except ValidationError as error:
            raise ConfigError(f"server config: {_problems(error)}; correct it there") from error
        except ValueError as error:
            raise ConfigError(f"server config: tuning: {error}; correct it there") from error
        path = settings.synthesis_path
        if not path.startswith("/") or path in (HEALTH_PATH, METRICS_PATH, OPENAI_PATH):
            raise ConfigError(
                f"server config: synthesis_path is {path!r}; give a path of its own, "
                "such as /synthesize"
            )
        if settings.stuck_s < settings.deadline_s:
            raise ConfigError(
                f"server config: stuck_s is {settings.stuck_s:g}; give at least deadline_s "
                f"({settings.deadline_s:g}), until which a request may be worked on"
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


def _problems(error: ValidationError) -> str:
    """Return pydantic's errors as ``where: what``, in one line."""
    rows = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in rows)
