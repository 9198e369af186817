"""A good start for the autoencoder: weights that already shrink, carry colour and enlarge.

Trained from random weights for minutes on a CPU, an AutoencoderKL does not learn to pass colour on. Here its skip
connections are set so that, before any training, the latent holds 4 x 4 means of brightness and two colour differences,
and the decoder enlarges them smoothly; training then adds detail. It rests on two identities: silu(x) - silu(-x) = x,
so a channel and its negative pass an activation unharmed, and two constant channels much larger than the signal make a
group norm over all channels nearly a fixed scale.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

CONSTANT: Final[float] = 3.0
"""Size of the two constant channels, against signals of about 0.5."""
CARRIED: Final[int] = 8
"""Channels 0-2 carry red, green, blue, 3-5 their negatives, 6 and 7 the constants."""

TO_LATENT: Final[Tensor] = torch.tensor([[0.65, 0.65, 0.65], [1.9, 0.0, -1.9], [-1.6, 3.2, -1.6]])
"""Brightness and two colour differences, each of about unit variance over the training pictures."""


@torch.no_grad()
def initialise(model: Any) -> None:
    """Set the weights of an AutoencoderKL in place. Needs one norm group and at least 12 channels on every level."""
    encoder, decoder = model.encoder, model.decoder
    _enter(encoder.conv_in, torch.eye(3))
    _enter(decoder.conv_in, torch.cat([torch.linalg.inv(TO_LATENT), torch.zeros(3, 1)], dim=1))
    for part in (encoder, decoder):
        for module in part.modules():
            name = type(module).__name__
            if name == "ResnetBlock2D":
                _quiet(module)
            elif name == "Downsample2D":
                _shrink(module.conv)
            elif name == "Upsample2D":
                _enlarge(module.conv)
        width = part.conv_norm_out.num_channels
        part.conv_norm_out.weight.fill_((2 * (CONSTANT**2 + 0.9) / width) ** 0.5)
    _leave(encoder.conv_out, TO_LATENT)
    _leave(decoder.conv_out, torch.eye(3))
    # The last four outputs are the latent's log variance: a small, even spread to begin with.
    encoder.conv_out.weight[4:].zero_()
    encoder.conv_out.bias[4:].fill_(-4.0)
    for conv in (model.quant_conv, model.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None])
        conv.bias.zero_()


def _enter(conv: nn.Conv2d, mixing: Tensor) -> None:
    """First convolution: signals, their negatives, constants; the other channels keep small random filters."""
    assert conv.bias is not None
    conv.weight[:CARRIED].zero_()
    conv.weight[:3, :, 1, 1] = mixing
    conv.weight[3:6, :, 1, 1] = -mixing
    conv.bias.zero_()
    conv.bias[6], conv.bias[7] = CONSTANT, -CONSTANT


def _leave(conv: nn.Conv2d, mixing: Tensor) -> None:
    """Last convolution: each output from a signal and its negative after the activation."""
    assert conv.bias is not None
    conv.weight[:3].zero_()
    conv.weight[:3, :3, 1, 1] = mixing
    conv.weight[:3, 3:6, 1, 1] = -mixing
    conv.bias[:3].zero_()


def _quiet(block: Any) -> None:
    """A residual block that adds nothing yet, and whose shortcut keeps the carried channels apart from the rest."""
    block.conv2.weight.zero_()
    block.conv2.bias.zero_()
    if block.conv_shortcut is not None:
        weight = block.conv_shortcut.weight
        weight[:CARRIED].zero_()
        weight[:, :CARRIED] *= 0.3
        weight[:CARRIED, :CARRIED, 0, 0] = torch.eye(CARRIED)
        block.conv_shortcut.bias.zero_()


def _shrink(conv: nn.Conv2d) -> None:
    """Means of 2 x 2: the encoder pads on the right and below, so a window starts at its own pixel."""
    _per_channel(conv, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))


def _enlarge(conv: nn.Conv2d) -> None:
    """A binomial blur after repeating pixels: smooth enlargement."""
    row = torch.tensor([0.25, 0.5, 0.25])
    _per_channel(conv, torch.outer(row, row))


def _per_channel(conv: nn.Conv2d, kernel: Tensor) -> None:
    assert conv.bias is not None
    conv.weight[:CARRIED].zero_()
    conv.weight[:, :CARRIED] *= 0.3
    for k in range(CARRIED):
        conv.weight[k, k] = kernel
    conv.bias.zero_()
