"""What the model is asked for and what it returns; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: Upstream's own limit on speech tokens per utterance.
UPSTREAM_TOKEN_CAP = 1000

#: Under it, the sampler's logits are not finite any more; on a GPU that loses the device.
MIN_TEMPERATURE = 0.01

#: Speech tokens of a second of audio.
TOKENS_PER_S = 25


@dataclass(frozen=True)
class Tuning:
    """Sampler settings, in upstream's names.

    Raises:
        ValueError: a value that upstream cannot work with (``cfg_weight=0`` crashes it), or
            a temperature under `MIN_TEMPERATURE`.
    """

    cfg_weight: float
    exaggeration: float
    temperature: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 5.0 or (name != "exaggeration" and value == 0.0):
                raise ValueError(f"{name} is {value}; it must be above 0 and at most 5")
        if self.temperature < MIN_TEMPERATURE:
            raise ValueError(
                f"temperature is {self.temperature}; it must be {MIN_TEMPERATURE} or more"
            )


@dataclass(frozen=True)
class Synthesis:
    """What the model said.

    Attributes:
        samples: float32 [N].
        rate: samples per second.
        wall_s: wall time of the synthesis, device synchronised, in seconds.
        tokens: speech tokens sampled, the end token included.
        hit_cap: the model was cut off, at the token cap or at the text's own longest plausible
            length, instead of ending by itself.
    """

    samples: Any
    rate: int
    wall_s: float
    tokens: int
    hit_cap: bool

    @property
    def cut_off(self) -> str | None:
        """The sentence about audio that was cut off, else None."""
        return f"cut off at the token cap after {self.tokens} tokens" if self.hit_cap else None


class Stopped(Exception):
    """The synthesis was abandoned, since nobody wanted it any more."""
