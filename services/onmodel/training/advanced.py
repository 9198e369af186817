"""The settings of loss, noise and memory: the config's table [advanced]. `objective` makes use of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from onmodel.training.section import Section

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]
TimestepSampling = Literal["sigma", "uniform", "sigmoid", "shift", "flux_shift"]
DynamoBackend = Literal["inductor", "cudagraphs", "aot_eager", "eager", "no"]
WeightingScheme = Literal["none", "uniform", "logit_normal", "mode", "sigma_sqrt", "cosmap"]


class AdvancedSection(Section):
    """Loss and memory."""

    min_snr_gamma: float | None = Field(default=None, ge=0)
    """Weight of the min-SNR strategy (Hang et al. 2023); 5 is usual, 0 is none."""
    debiased_estimation_loss: bool = False
    """Weight 1/√SNR (Yu et al. 2024)."""
    scale_v_pred_loss_like_noise_pred: bool = False
    """Weight SNR/(SNR + 1), for v-prediction."""
    v_pred_like_loss: float | None = Field(default=None, ge=0)
    """Adds so much of the v loss to the noise loss."""
    loss_type: LossType = "l2"
    huber_schedule: HuberSchedule = "snr"
    """How the width of `huber` and `smooth_l1` goes with the timestep."""
    huber_c: float = Field(default=0.1, gt=0, le=1)
    """Their width at the end of the schedule."""
    huber_scale: float = Field(default=1.0, gt=0)
    noise_offset: float = Field(default=0.0, ge=0)
    """Strength of a per-channel constant added to the noise; 0.05 is usual."""
    noise_offset_random_strength: bool = False
    """Draw the strength anew for each batch, between 0 and `noise_offset`."""
    adaptive_noise_scale: float = 0.0
    """Adds so much of each channel's mean latent to `noise_offset`."""
    multires_noise_iterations: int = Field(default=0, ge=0)
    """Levels of coarser noise that are added; 6 to 10 are usual."""
    multires_noise_discount: float = Field(default=0.3, ge=0, le=1)
    """How much weaker each coarser level is."""
    ip_noise_gamma: float = Field(default=0.0, ge=0)
    """Strength of further noise that the model sees and is not to predict; 0.1 is usual."""
    ip_noise_gamma_random_strength: bool = False
    min_timestep: int | None = Field(default=None, ge=0)
    max_timestep: int | None = Field(default=None, ge=1)
    """Timesteps are drawn from `min_timestep` to just below this."""
    timestep_sampling: TimestepSampling = "sigma"
    """How a flow model's noise levels are drawn."""
    weighting_scheme: WeightingScheme = "none"
    """Of a flow model: how `sigma` draws (logit_normal, mode), or how noise levels weigh (sigma_sqrt, cosmap)."""
    discrete_flow_shift: float | None = Field(default=None, gt=0)
    """Moves a flow model's noise levels towards noise; absent: as the base model's scheduler says."""
    sigmoid_scale: float = Field(default=1.0, gt=0)
    logit_mean: float = 0.0
    logit_std: float = Field(default=1.0, gt=0)
    mode_scale: float = 1.29
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    torch_compile: bool = False
    """Compile the forward pass and the loss; each shape that a batch has is compiled once a run."""
    dynamo_backend: DynamoBackend = "inductor"
    """What compiles: inductor fuses kernels, and on a GPU records them as one graph; cudagraphs records them as they
    are, which is sooner done; eager and aot_eager are for looking for faults."""

    @model_validator(mode="after")
    def _timesteps_in_order(self) -> Self:
        if self.max_timestep is not None and (self.min_timestep or 0) >= self.max_timestep:
            raise ValueError("`min_timestep` must lie below `max_timestep`")
        if self.adaptive_noise_scale and not self.noise_offset:
            raise ValueError("`adaptive_noise_scale` adds to `noise_offset`; give that too")
        return self
