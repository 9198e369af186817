"""What a picture's caption says at one showing: a line of several, tags shuffled and left out, or nothing.

While the text encoder is not trained its output is cached, so the captions that shuffling and leaving out can give are
a fixed number for each line (`pool`), made before the run and drawn from at each showing. A text encoder that is
trained reads each caption anew, so there each showing shuffles for itself.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onmodel.core.files import content_hash
from onmodel.training.config import DataSection
from onmodel.training.job import CaptionRules
from onmodel.training.wildcards import choose

if TYPE_CHECKING:
    # Where nothing varies nothing is drawn, and the driver is spared the seconds that torch takes to import.
    import torch


def vary(line: str, rules: CaptionRules, tag_dropout: float, generator: "torch.Generator") -> str:
    """A caption with its alternatives chosen, movable tags shuffled and each left out by chance, as sd-scripts does.

    Tags in front stay: `keep_tokens` of them, or those before `keep_tokens_separator`; those behind a second separator
    stay too. Without anything to vary the line is as it was.

    Args:
        tag_dropout: the config's chance of a tag to be left out; the rules' own goes before it.
    """
    import torch

    if rules.enable_wildcard:
        line = choose(line, lambda count: int(torch.randint(count, (), generator=generator)))
    if rules.caption_tag_dropout_rate is not None:
        tag_dropout = rules.caption_tag_dropout_rate
    if not rules.shuffle_caption and not tag_dropout:
        return rules.unmarked(line)
    front, moving, behind = _parts(line, rules)
    if rules.shuffle_caption:
        moving = [moving[index] for index in torch.randperm(len(moving), generator=generator).tolist()]
    if tag_dropout:
        kept = (torch.rand(len(moving), generator=generator) >= tag_dropout).tolist()
        moving = [tag for tag, keep in zip(moving, kept, strict=True) if keep]
    return ", ".join([*front, *moving, *behind])


def _parts(line: str, rules: CaptionRules) -> tuple[list[str], list[str], list[str]]:
    """Tags that stay in front, that move, and that stay behind."""

    def tags(text: str) -> list[str]:
        return [tag.strip() for tag in text.split(rules.caption_separator) if tag.strip()]

    mark = rules.keep_tokens_separator
    if mark and mark in line:
        front, _, rest = line.partition(mark)
        moving, _, behind = rest.partition(mark)
        return tags(front), tags(moving), tags(behind)
    every = tags(line)
    return every[: rules.keep_tokens], every[rules.keep_tokens :], []


def pool(lines: Sequence[str], rules: CaptionRules, tag_dropout: float, variants: int, seed: int) -> tuple[str, ...]:
    """Everything the captions `lines` may say, each line as often as the others: at most `variants` of each.

    The same seed and line give the same captions, whatever else the set holds.
    """
    thinned = tag_dropout if rules.caption_tag_dropout_rate is None else rules.caption_tag_dropout_rate
    chosen = rules.enable_wildcard and any(choose(line, lambda count: 0) != line for line in lines)
    if not rules.shuffle_caption and not thinned and not chosen:
        return tuple(rules.plain(line) for line in lines)
    import torch

    found: list[str] = []
    for line in lines:
        generator = torch.Generator().manual_seed(int(content_hash(f"{seed} {line}".encode())[:15], 16))
        found += [vary(line, rules, tag_dropout, generator) for _ in range(variants)]
    return tuple(found)


def dropped(rules: CaptionRules, data: DataSection, chance: float, epoch: int) -> bool:
    """Whether a caption is left empty.

    Args:
        chance: drawn evenly from 0 to 1.
        epoch: of the run, from 0.
    """
    every = rules.caption_dropout_every_n_epochs
    rate = data.caption_dropout_rate if rules.caption_dropout_rate is None else rules.caption_dropout_rate
    return chance < rate or bool(every and epoch % every == 0)
