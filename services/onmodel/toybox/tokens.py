"""The bundled pipeline's tokenizer: CLIP's byte-pair scheme with a vocabulary cut to the toybox's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from onmodel.toybox.wording import vocabulary

MAX_TOKENS: Final[int] = 48
START, END = "<|startoftext|>", "<|endoftext|>"


def _alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes that CLIP's scheme writes its tokens in."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def build_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token ids and merges such that every word of `vocabulary()` is one token; other words fall into pieces."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=60_000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=_alphabet(), show_progress=False
    )  # fmt: skip
    words = [w for w in vocabulary() if w.isalpha()]
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = list(dict.fromkeys([*_alphabet(), *(f"{a}</w>" for a in _alphabet()), *("".join(m) for m in merges)]))
    return {t: i for i, t in enumerate([*tokens, START, END])}, [(a, b) for a, b in merges]


def save(folder: Path) -> None:
    """Write a folder that `CLIPTokenizer.from_pretrained` loads offline."""
    from transformers import CLIPTokenizer

    vocab, merges = build_vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS, pad_token=END
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
