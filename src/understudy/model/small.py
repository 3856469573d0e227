"""The small architecture of a rehearsal's random weights, named by a marker file beside them.

Real weights have no such file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARKER = "rehearsal.json"


#: Sizes of the shrunken modules. Upstream: 30 x 4096, 6 x 2048, 4 + 12, 6 x 1280.
ARCHITECTURE: dict[str, int] = {
    "t3_layers": 2,
    "t3_intermediate": 1024,
    "flow_encoder_blocks": 1,
    "flow_encoder_units": 512,
    "flow_decoder_blocks": 1,
    "flow_decoder_mid_blocks": 2,
    "tokenizer_layers": 1,
    "tokenizer_state": 640,
    "tokenizer_heads": 10,
}


def read_marker(weights_dir: Path) -> dict[str, int] | None:
    """Return the architecture in ``rehearsal.json``, or None for real weights.

    It is empty for random weights of the full size.
    """
    marker = weights_dir / MARKER
    if not marker.is_file():
        return None
    architecture: dict[str, int] = json.loads(marker.read_text(encoding="utf-8"))["architecture"]
    return architecture


def shrink(architecture: dict[str, int]) -> None:
    """Make this process build the small modules instead of the full-size ones.

    Affects every model built afterwards in the process; there is one per process.

    Args:
        architecture: the sizes, as in `ARCHITECTURE`.
    """
    from functools import partial

    from chatterbox.models.s3gen import s3gen as upstream
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2

    LLAMA_CONFIGS["Llama_520M"].update(
        num_hidden_layers=architecture["t3_layers"],
        intermediate_size=architecture["t3_intermediate"],
    )
    if not isinstance(upstream.ConditionalDecoder, partial):
        encoder, decoder = upstream.UpsampleConformerEncoder, upstream.ConditionalDecoder

        def small_encoder(**kwargs: Any) -> Any:
            kwargs.update(
                num_blocks=architecture["flow_encoder_blocks"],
                linear_units=architecture["flow_encoder_units"],
            )
            return encoder(**kwargs)

        def small_decoder(*args: Any, **kwargs: Any) -> Any:
            kwargs.update(
                n_blocks=architecture["flow_decoder_blocks"],
                num_mid_blocks=architecture["flow_decoder_mid_blocks"],
            )
            return decoder(*args, **kwargs)

        upstream.UpsampleConformerEncoder = partial(small_encoder)
        upstream.ConditionalDecoder = partial(small_decoder)
    S3TokenizerV2.__init__.__defaults__ = (
        ModelConfig(
            n_audio_layer=architecture["tokenizer_layers"],
            n_audio_state=architecture["tokenizer_state"],
            n_audio_head=architecture["tokenizer_heads"],
        ),
    )
