"""The voice server's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
Setting = Annotated[float, Field(gt=0.0, le=5.0)]


class SamplerSettings(BaseModel):
    """Sampler settings, in upstream's names; ``cfg_weight=0`` crashes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cfg_weight: Setting
    exaggeration: Annotated[float, Field(ge=0.0, le=5.0)]
    temperature: Setting


class ServerConfigDocument(BaseModel):
    """What ``understudy serve --config`` takes; docs/voice-server.md has it as a table.

    Attributes:
        bind: address to listen on.
        port: and port; 0 takes a free one.
        voices_dir: where the voice references are; ``~`` is the user's home here and below.
        default_voice: name of a file in it, used where a request names none.
        weights_dir: what ``ChatterboxTTS.from_local`` wants.
        synthesis_path: where speech is asked for.
        token_file: holds the token; without one only loopback may be bound.
        allowed_hosts: beside loopback's, names by which a server without a token may be called.
        device: a torch device.
        threads: CPU threads of torch; None leaves torch's own choice.
        token_cap: speech tokens per piece of text at most; None is upstream's.
        stft_patch: apply the Blackwell patch.
        fast_load: load the model with the shortcuts of `understudy.model.fastload`.
        tuning: used where a request leaves it out.
        empty_text: whether a text without a word is a 422, or spoken as a moment of silence.
        queue: requests that may wait while one is spoken.
        deadline_s: a request that is not spoken by then gets a 503.
        proof_interval_s: seconds without a good synthesis until a self-test; 0 for never.
        max_failed_self_tests: so many in a row end the process; 0 for never.
        drain_s: how long accepted requests may still take after a SIGTERM.
        stuck_s: a synthesis that takes longer will not come back.
        max_connections: open at once; fewer where the limit on open files is lower.
        max_text: characters of a text.
        max_body_bytes: of a request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bind: str
    port: Annotated[int, Field(ge=0, le=65_535)]
    voices_dir: HomePath
    default_voice: str
    weights_dir: HomePath = Path()
    synthesis_path: str = "/synthesize"
    token_file: HomePath | None = None
    allowed_hosts: list[str] = []
    device: str = "cpu"
    threads: Count | None = None
    token_cap: Count | None = None
    stft_patch: bool = False
    fast_load: bool = True
    tuning: SamplerSettings = SamplerSettings(cfg_weight=0.3, exaggeration=0.3, temperature=0.6)
    empty_text: Literal["error", "silence"] = "error"
    queue: Annotated[int, Field(ge=0)] = 8
    deadline_s: Seconds = 30.0
    proof_interval_s: Annotated[float, Field(ge=0.0, le=86_400.0)] = 300.0
    max_failed_self_tests: Annotated[int, Field(ge=0)] = 5
    drain_s: Seconds = 30.0
    stuck_s: Seconds = 120.0
    max_connections: Count = 512
    max_text: Count = 2_000
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 65_536
