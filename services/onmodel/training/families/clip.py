"""Captions through CLIP's text encoders, from an earlier layer or in several windows, as sd-scripts does it.

A caption longer than the encoder's window is cut into windows, each a caption of its own (start, tokens, end, padding);
their states are put together again without the starts and ends between them. Source of both rules: sd-scripts'
`strategy_base.py` and `strategy_sd.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOKENS_A_WINDOW = 75
"""What `max_token_length` counts in: the tokens between start and end of CLIP's window."""


def windows(tokenizer: Any, captions: Sequence[str], count: int) -> Tensor:
    """The ids of each caption in `count` windows: int64 (B, count, T), T the tokenizer's length; the rest is cut."""
    length = int(tokenizer.model_max_length)
    inside = length - 2
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows: list[list[list[int]]] = []
    for caption in captions:
        ids = tokenizer(caption, truncation=True, max_length=count * inside + 2).input_ids[1:-1]
        parts = [ids[at : at + inside] for at in range(0, count * inside, inside)]
        rows.append([[start, *part, end, *[pad] * (inside - len(part))] for part in parts])
    return torch.tensor(rows)


def joined(states: Tensor) -> Tensor:
    """States of windows (B, count, T, width) as those of one caption: (B, count · (T − 2) + 2, width)."""
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)


def last_states(encoder: Any, ids: Tensor, clip_skip: int) -> Tensor:
    """What the layer `clip_skip` from the end gives (1: the last one), after the final norm: (n, T, width)."""
    ids = ids.to(encoder.device)
    if clip_skip == 1:
        return encoder(ids)[0]
    states = encoder(ids, output_hidden_states=True).hidden_states[-clip_skip]
    # transformers 5 left the level `text_model` out.
    return getattr(encoder, "text_model", encoder).final_layer_norm(states)


def encode(pipeline: Any, captions: Sequence[str], clip_skip: int, count: int) -> Tensor:
    """Conditioning of a pipeline with one text encoder, in `count` windows: (B, count · (T − 2) + 2, width)."""
    ids = windows(pipeline.tokenizer, captions, count)
    states = last_states(pipeline.text_encoder, ids.flatten(0, 1), clip_skip)
    return joined(states.unflatten(0, ids.shape[:2]))


def encode_two(pipeline: Any, captions: Sequence[str], count: int) -> tuple[Tensor, Tensor]:
    """SDXL's conditioning: both encoders' last but one layers side by side, and the first window's pooled vector."""
    parts: list[Tensor] = []
    pooled = torch.empty(0)
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        ids = windows(tokenizer, captions, count)
        output = encoder(ids.flatten(0, 1).to(encoder.device), output_hidden_states=True)
        parts.append(joined(output.hidden_states[-2].unflatten(0, ids.shape[:2])))
        pooled = output[0].unflatten(0, ids.shape[:2])[:, 0]
    return torch.cat(parts, dim=-1), pooled
