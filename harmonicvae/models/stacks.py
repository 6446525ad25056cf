"""Several models of the same shapes trained as one: stacked weights, one batched step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from harmonicvae.models.batches import RowBatches, permutation
from harmonicvae.models.modules import LOG_STD_RANGE
from harmonicvae.models.net import VAENet
from harmonicvae.models.stacked_loss import StackedLoss

#: What Adam keeps of every parameter, beside the number of steps.
_MOMENTS = ("exp_avg", "exp_avg_sq")


class _StackedAffine(torch.autograd.Function):
    """x ↦ x·Wᵀ + b for k models at once; gradients are written into ``weight.grad``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.gradients = weight.grad, bias.grad
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_weight, of_bias = ctx.gradients
        torch.bmm(gradient.transpose(1, 2), x, out=of_weight)
        torch.sum(gradient, 1, out=of_bias)
        of_input = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return of_input, None, None


def shared_batches(net: VAENet, X: Any) -> RowBatches:
    """Return the rows for all stacks of a group: on a GPU they are kept there once.

    Parameters
    ----------
    net : VAENet
        Any of the group.
    X : ndarray of shape (n, d), float32, or ScaledImages

    Returns
    -------
    RowBatches
        Complete batches only, to gather from.
    """
    return RowBatches(
        X,
        batch_size=net.batch_size,
        device=torch.device(net.device),
        generator=None,
        drop_last=True,
    )


class ModelStack:
    """Models of the same shapes whose parameters are slices of stacked tensors.

    Parameters
    ----------
    nets : sequence of VAENet
        Initialised, perhaps with the state of a checkpoint; all after the same number of
        epochs.  Until :meth:`release` their parameters and optimiser states are views of
        the stack.
    batches : RowBatches
        Rows of all stacks of a group, from :func:`shared_batches`.

    Notes
    -----
    A model's slices depend on no other model's: one that becomes NaN leaves the others as
    they are.  No value is brought from the device before an epoch ends.
    """

    def __init__(self, nets: Sequence[VAENet], batches: RowBatches) -> None:
        self.nets = nets
        self.batches = batches
        self.device = batches.device
        self.loss = StackedLoss([net.criterion_ for net in nets], self.device)
        self.parameters = self._stacked_parameters()
        self.optimizer = self._stacked_optimizer()
        module = nets[0].module_
        self.encoder = self._stacked_layers("encoder", module.encoder)
        self.decoder = self._stacked_layers("decoder", module.decoder)
        self._rows: Any = None
        self._noisy: Any = None
        self._noise: Any = None

    # ------------------------------------------------------------------ the stack

    def _stacked_parameters(self) -> dict[str, torch.Tensor]:
        """Stack the parameters by name and make the nets' own ones views."""
        owners = [dict(net.module_.named_parameters()) for net in self.nets]
        stacked = {}
        for name in owners[0]:
            values = _stacked([owned[name].detach() for owned in owners])
            for owned, value in zip(owners, values):
                owned[name].data = value
            stacked[name] = values.requires_grad_()
            values.grad = torch.empty_like(values)  # a backward pass writes all of it
        return stacked

    def _stacked_optimizer(self) -> torch.optim.Adam:
        """Return Adam over the stack, with the nets' states as views of its own."""
        group = self.nets[0].optimizer_.param_groups[0]
        optimizer = torch.optim.Adam(
            self.parameters.values(),
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            fused=True,
        )
        for name, values in self.parameters.items():
            own = [dict(net.module_.named_parameters())[name] for net in self.nets]
            states = [net.optimizer_.state for net in self.nets]
            former = [state.get(value) for state, value in zip(states, own)]
            step = torch.zeros((), dtype=torch.float32, device=self.device)
            for moments in filter(None, former):
                step.copy_(moments["step"])
            state = {"step": step}
            for key in _MOMENTS:
                stored = [
                    moments[key] if moments else torch.zeros_like(value.detach())
                    for moments, value in zip(former, own)
                ]
                state[key] = _stacked(stored)
            optimizer.state[values] = state
            for k, (of_net, value) in enumerate(zip(states, own)):
                of_net[value] = {"step": step} | {key: state[key][k] for key in _MOMENTS}
        return optimizer

    def _stacked_layers(self, prefix: str, layers: nn.Sequential) -> list[Any]:
        """Return the affine layers as pairs of stacked tensors, activations as they are."""
        return [
            self._affine(f"{prefix}.{index}") if isinstance(layer, nn.Linear) else layer
            for index, layer in enumerate(layers)
        ]

    def _affine(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]

    def release(self) -> None:
        """Give every net tensors of its own: the stack is not kept alive by any of them."""
        for net in self.nets:
            for parameter in net.module_.parameters():
                parameter.data = _own(parameter.data)
                state = net.optimizer_.state[parameter]
                net.optimizer_.state[parameter] = {key: _own(state[key]) for key in state}

    # ------------------------------------------------------------------ training

    def epoch(self) -> tuple[torch.Tensor, list[int], float]:
        """Train all models for one epoch.

        Returns
        -------
        terms : Tensor of shape (batches, 3, k), float64, on the CPU
            Loss, ‖x − g(z)‖² and KL of every batch.
        sizes : list of int
            Rows of every batch.
        seconds : float
            Wall time of the epoch.
        """
        started = time.perf_counter()
        self._allocate()
        generators: list[Any] = [net.order_generator_ for net in self.nets]
        orders = [permutation(self.batches.n_rows, generator) for generator in generators]
        order = torch.stack(orders)
        if self.batches.on_device:
            order = order.pin_memory().to(self.device, non_blocking=True)
        size = self.batches.batch_size
        starts = range(0, len(self.batches) * size, size)
        terms = [self._step(order[:, start : start + size]) for start in starts]
        figures = torch.stack(terms).to("cpu", torch.float64)
        self._rows = self._noisy = self._noise = None  # the next stack's turn
        return figures, [size] * len(terms), time.perf_counter() - started

    def _allocate(self) -> None:
        """Make the buffers of a batch: rows, unless gathered on a GPU, and both noises."""
        count = (len(self.nets), self.batches.batch_size)
        shape = (*count, self.batches.n_features)
        code = (*count, self.nets[0].module_.encoder[-1].out_features)
        self._rows = None if self.batches.on_device else torch.empty(shape, device=self.device)
        self._noisy = torch.empty(shape, device=self.device) if self.loss.noisy else None
        self._noise = torch.empty(code, device=self.device)

    def _step(self, indices: torch.Tensor) -> torch.Tensor:
        """Take one step with the given rows, (k, b); return the terms, (3, k)."""
        x = self._gather(indices)
        generators: list[Any] = [net.noise_generator_ for net in self.nets]
        inputs = x if self._noisy is None else self._noisy
        if self._noisy is not None:
            self.loss.add_noise(x, self._noisy, generators)
        for noise, generator in zip(self._noise, generators):
            noise.normal_(generator=generator)
        mean, log_std = self._posterior(inputs)
        output = _apply(self.decoder, self.loss.code(mean, log_std, self._noise))
        terms = self.loss.terms(mean, log_std, output, x)
        terms[0].sum().backward()
        self.optimizer.step()
        return torch.stack([term.detach() for term in terms])

    def _gather(self, indices: torch.Tensor) -> torch.Tensor:
        """Return every model's batch, (k, b, d); one kernel where the data are on a GPU."""
        if self._rows is None:
            return self.batches.gather(indices)
        for rows, chosen in zip(self._rows, indices):
            if self.device.type == "cpu":
                self.batches.gather(chosen, rows)
            else:
                rows.copy_(self.batches.gather(chosen))
        return self._rows

    def _posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean codes and, where they are learned, log σ(x); both (k, n, m)."""
        trunk = _apply(self.encoder[:-1], x)
        mean = _apply(self.encoder[-1:], trunk)
        if not self.loss.learned:
            return mean, None
        log_std = _StackedAffine.apply(trunk, *self._affine("log_std"))
        return mean, log_std.clamp(*LOG_STD_RANGE)


def _stacked(values: list[torch.Tensor]) -> torch.Tensor:
    """Stack tensors along a new first axis; of a single one return a view."""
    return values[0].unsqueeze(0) if len(values) == 1 else torch.stack(values)


def _own(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor that keeps no other values alive, nor is shared (the step count)."""
    whole = value.untyped_storage().nbytes() == value.nbytes
    return value if whole and value.dim() else value.clone()


def _apply(layers: Sequence[Any], x: torch.Tensor) -> torch.Tensor:
    """Apply stacked layers and activations in turn."""
    for layer in layers:
        x = _StackedAffine.apply(x, *layer) if isinstance(layer, tuple) else layer(x)
    return x
