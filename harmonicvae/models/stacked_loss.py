"""The training losses of several models at once, by the objective's own terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harmonicvae.models.loss import StudyLoss
from harmonicvae.models.objective import (
    code_scale,
    draw_code,
    kl_divergence,
    reproduction_kl,
    squared_error_sum,
)


class StackedLoss:
    """The losses of k models as :class:`StudyLoss` defines them, each with its own settings.

    Parameters
    ----------
    criteria : sequence of StudyLoss
        One a model; all with a fixed spread, or all with a learned one and the same switches
        "squared_std" and "kl_form".
    device : torch.device
    """

    def __init__(self, criteria: Sequence[StudyLoss], device: torch.device) -> None:
        def column(values: list[Any], *shape: int) -> torch.Tensor:
            return torch.tensor(values, device=device).reshape(-1, *shape)

        self.criteria = criteria
        self.learned = criteria[0].encoder_std is None
        self.noisy = any(criterion.input_noise_std for criterion in criteria)
        #: Whether a learned spread is squared; a fixed one's scale is so already.
        self.squared = self.learned and "squared_std" in criteria[0].switches
        self.weights = column([criterion.kl_weight for criterion in criteria])
        self.kl_forms = {criterion.kl for criterion in criteria}
        self.reproduction = column([c.kl is reproduction_kl for c in criteria], 1)
        self.std: Any = None
        self.scale: Any = None
        if not self.learned:
            stds = [criterion.encoder_std for criterion in criteria]
            scales = [
                code_scale(std, "squared_std" in c.switches) for std, c in zip(stds, criteria)
            ]
            alone = len(stds) == 1  # a number is multiplied and added in one rounding
            self.std = stds[0] if alone else column(stds, 1)
            self.scale = scales[0] if alone else column(scales, 1, 1)

    def add_noise(
        self, x: torch.Tensor, out: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> None:
        """Write x plus each model's input noise to ``out``; a noisy target replaces x."""
        for k, (criterion, generator) in enumerate(zip(self.criteria, generators)):
            if not criterion.input_noise_std:
                out[k].copy_(x[k])
                continue
            shared = "shared_noise" in criterion.switches
            noise = torch.empty_like(x[k, :1]) if shared else out[k]
            noise.normal_(generator=generator)
            torch.add(x[k], noise, alpha=criterion.input_noise_std, out=out[k])
            if criterion.noisy_target:
                x[k].copy_(out[k])

    def code(
        self, mean: torch.Tensor, log_std: torch.Tensor | None, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return the codes z of shape (k, n, m) for given standard normal noise."""
        return draw_code(mean, self.scale, log_std, noise, squared_std=self.squared)

    def terms(
        self,
        mean: torch.Tensor,
        log_std: torch.Tensor | None,
        output: torch.Tensor,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss, ‖x − g(z)‖² and KL of every model, each of shape (k,)."""
        squared_error = squared_error_sum(output, target) / target.shape[-2]
        forms = [
            form(mean, self.std, log_std)
            for form in (kl_divergence, reproduction_kl)
            if form in self.kl_forms
        ]
        kl = forms[0] if len(forms) == 1 else torch.where(self.reproduction, forms[1], forms[0])
        kl = kl.mean(-1)
        return squared_error + self.weights * kl, squared_error, kl
