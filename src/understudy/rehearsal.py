"""Small random weights and a made-up voice, for a rehearsal without a GPU.

The files have upstream's names and format and are loaded by the unmodified
``ChatterboxTTS.from_local``. Only the *sizes* of a few inner modules differ;
they are written to ``rehearsal.json`` beside the weights, and `shrink` must be
called with them before the model is built. Real weights have no such file: with it, a server says
that it rehearses, and nobody expects speech of it.

What a random model lacks is an ending: it would run into the token cap every
time. So one direction of the hidden space is reserved. It grows with the
position of the speech token and points at the end-of-speech logit, which makes
an utterance end by itself after two to four seconds, as a trained one does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from understudy.model.small import ARCHITECTURE, MARKER, shrink

SEED = 20260101


#: Where the end becomes likely, in speech tokens (25 are one second), and the logit there.
END_POSITION, END_LOGIT = 90, 5.0

#: Added to the vocoder's log magnitudes (natural logarithm): + 16 dB.
GAIN_LOG = 1.8


def make_weights(out_dir: Path, *, small: bool = True) -> None:
    """Write random weights that ``ChatterboxTTS.from_local`` loads.

    Args:
        out_dir: receives ``ve``, ``t3_cfg``, ``s3gen`` (safetensors), ``tokenizer.json``
            and ``rehearsal.json``. The default voice (``conds.pt``)
            needs a recording: see `make_all`.
        small: False writes the full-size model (3.2 GB), for tests on a GPU.
    """
    import torch
    from safetensors.torch import save_file

    out_dir.mkdir(parents=True, exist_ok=True)
    if small:
        shrink(ARCHITECTURE)
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.voice_encoder import VoiceEncoder

    torch.manual_seed(SEED)
    t3, s3gen, ve = T3(), S3Gen(), VoiceEncoder()
    with torch.no_grad():
        _teach_to_stop(t3)
        _speak_up(s3gen.mel2wav)
    for name, model in (("t3_cfg", t3), ("s3gen", s3gen), ("ve", ve)):
        state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
        save_file(state, str(out_dir / f"{name}.safetensors"))
    _write_tokenizer(out_dir / "tokenizer.json")
    marker = {"architecture": ARCHITECTURE if small else {}, "seed": SEED, "what": "random weights"}
    (out_dir / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def make_voice(path: Path, seconds: float = 8.0) -> None:
    """Write a made-up voice: vowels of a glottal pulse through three formants, with pauses.

    Formant frequencies are textbook averages for a woman's vowels (Peterson and Barney, 1952).
    """
    import numpy as np

    from understudy.audio.pcm import SAMPLE_RATE, write_wav

    vowels = [(850, 1220, 2810), (610, 2330, 2990), (310, 2790, 3310), (590, 920, 2710)]
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    pitch = 190 * (1 + 0.12 * np.sin(2 * np.pi * 0.45 * time) + 0.01 * np.sin(34 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    vowel = (time / 0.22).astype(int) % len(vowels)
    formants = np.array(vowels, dtype=float)[vowel]
    voice = np.zeros(count)
    for harmonic in range(1, 24):
        distance = (harmonic * pitch[:, None] - formants) / 120.0
        voice += (1 / (1 + distance**2)).sum(axis=1) * np.sin(harmonic * phase) / harmonic**0.5
    syllables = np.clip(np.sin(np.pi * (time / 0.22 % 1)) * 3, 0, 1)
    pauses = (time % 2.4) < 2.0
    voice *= syllables * pauses
    write_wav(path, (0.35 * voice / np.abs(voice).max()).astype(np.float32))


def make_llm(out_dir: Path) -> None:
    """Write a two-layer random Gemma with a byte tokenizer, in transformers' format."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokens = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=special[4:],
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}"
        "<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    torch.manual_seed(SEED)
    config = Gemma3TextConfig(
        vocab_size=len(vocab),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        sliding_window=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma3ForCausalLM(config).save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def make_all(directory: Path) -> None:
    """Make ``weights/``, ``voices/rehearsal.wav`` and ``llm/`` under a directory.

    The default voice (``conds.pt``) is prepared from the made-up recording by the model
    itself, in upstream's format.
    """
    from understudy.model.voice import Voice

    voice_path = directory / "voices" / "rehearsal.wav"
    voice_path.parent.mkdir(parents=True, exist_ok=True)
    make_voice(voice_path)
    make_weights(directory / "weights")
    voice = Voice.load(directory / "weights", "cpu", fast_load=False)  # all is imported already
    voice.use_reference(voice_path, exaggeration=0.5)
    voice.save_default(directory / "weights" / "conds.pt")
    make_llm(directory / "llm")


def _teach_to_stop(t3: Any) -> None:
    """Tie the end-of-speech logit to the position of the speech token (see above)."""
    stop = t3.hp.stop_speech_token
    positions = t3.speech_pos_emb.emb.weight
    t3.speech_emb.weight[:, 0] = 0.0
    for layer in t3.tfmr.layers:  # nothing else may write to the reserved direction
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    ramp = positions.new_tensor(range(positions.shape[0])) / END_POSITION
    positions[:, 0] = ramp.clamp(max=2.0)
    t3.speech_head.weight[:, 0] = 0.0
    t3.speech_head.weight[stop] = 0.0
    t3.speech_head.weight[stop, 0] = END_LOGIT


def _speak_up(vocoder: Any) -> None:
    """Raise the vocoder's log magnitudes: random ones come out at about -38 dBFS."""
    magnitudes = vocoder.istft_params["n_fft"] // 2 + 1
    vocoder.conv_post.bias[:magnitudes] += GAIN_LOG


def _write_tokenizer(path: Path) -> None:
    """Write a character tokenizer with upstream's special tokens and ids below 704."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    special = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2, "[START]": 255}
    characters = [chr(c) for c in (*range(33, 127), *range(161, 320))]
    free = (i for i in range(3, 704) if i not in special.values())
    vocab = special | dict(zip(characters, free, strict=False))
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.save(str(path))
