"""Which components of a base model a config trains, and how fast each learns."""

from collections.abc import Sequence

from torch import nn

from onmodel.core.errors import UserError
from onmodel.training import network
from onmodel.training.config import TrainConfig
from onmodel.training.families import Family
from onmodel.training.optimizers import OptimizerSection


def trained_components(config: TrainConfig, family: Family) -> dict[str, nn.Module]:
    """The components of `family` that `config` trains."""
    options = config.network
    wanted = {
        name: module
        for name, module in family.components.items()
        if (not options.network_train_text_encoder_only if name in network.DENOISERS else options.trains_text)
    }
    if not wanted:
        raise UserError("network_train_text_encoder_only: the base model has no text encoder that can be trained")
    return wanted


def component_rates(options: OptimizerSection, names: Sequence[str]) -> dict[str, float]:
    """Learning rate of each component. Raises UserError for more text encoder rates than there are encoders."""
    texts = [name for name in names if name not in network.DENOISERS]
    given = options.text_encoder_lr
    each = given if isinstance(given, list) else [given] * len(texts)
    if len(each) == 1:
        each = each * len(texts)  # sd-scripts: one rate is everyone's
    if len(each) < len(texts) or (len(each) > len(texts) > 0):
        raise UserError(f"text_encoder_lr: {len(each)} rates for {len(texts)} text encoder(s); give one, or one each")
    rates = {name: options.unet_lr for name in names if name in network.DENOISERS} | dict(
        zip(texts, each, strict=False)
    )
    return {name: options.learning_rate if rates[name] is None else float(rates[name] or 0.0) for name in names}
