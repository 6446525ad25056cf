"""The skorch net inside the estimator: skorch's loop and callbacks, our batches and objective."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, PrintLog
from torch import nn

from harmonicvae import names
from harmonicvae.exceptions import DivergenceError
from harmonicvae.models.batches import RowBatches, RowDataset
from harmonicvae.models.objective import (
    draw_code,
    kl_divergence,
    reproduction_kl,
    squared_error_sum,
)

_BATCH_EVENTS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


class StudyLoss(nn.Module):
    """Training loss ‖x − g(z)‖² + w·KL, the mean over a batch, one draw of z a sample.

    Parameters
    ----------
    encoder_std : float or None
        Fixed σ_enc > 0, or None where the module learns it.
    input_noise_std : float
        σ_N ≥ 0 of the Gaussian noise added to the encoder's input in training.
    noisy_target : bool
        Whether the reconstruction target is the noisy input.
    kl_weight : float
        w > 0.
    switches : frozenset of str
        Names in :data:`harmonicvae.reproduction.TRAINING_ERRORS`.

    Notes
    -----
    With w = 1 this is the study's loss, up to a constant the negative ELBO of a Gaussian
    decoder of variance ½; half the loss with w = 2 is that of unit variance.  The switch
    "kl_form" takes Σ(σ² + μ² − log σ − ½) for KL, which for fixed σ is 2·KL plus a
    constant: it doubles the weight of the KL.
    """

    def __init__(
        self,
        encoder_std: float | None,
        input_noise_std: float,
        noisy_target: bool,
        kl_weight: float,
        switches: frozenset[str],
    ) -> None:
        super().__init__()
        self.encoder_std = encoder_std
        self.input_noise_std = input_noise_std
        self.noisy_target = noisy_target
        self.kl_weight = kl_weight
        self.switches = switches
        self.kl = reproduction_kl if "kl_form" in switches else kl_divergence

    def forward(
        self, module: Any, x: torch.Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss, ‖x − g(z)‖² and KL, each a scalar mean over the batch."""
        inputs = self._add_noise(x, generator) if training and self.input_noise_std else x
        mean, log_std = module.posterior(inputs)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        squared = "squared_std" in self.switches
        code = draw_code(mean, self.encoder_std, log_std, noise, squared_std=squared)
        target = inputs if self.noisy_target else x
        squared_error = squared_error_sum(module.decoder(code), target) / x.shape[0]
        kl = self.kl(mean, self.encoder_std, log_std).mean()
        return squared_error + self.kl_weight * kl, squared_error, kl

    def _add_noise(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return x plus Gaussian noise, drawn per sample unless "shared_noise" is on."""
        shape = (1, x.shape[1]) if "shared_noise" in self.switches else x.shape
        noise = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        return torch.add(x, noise, alpha=self.input_noise_std)


class EpochHook(Callback):
    """Call a function with the finished epoch's figures: the hook for loggers.

    Parameters
    ----------
    function : callable
        Called as ``function(row)`` with a dictionary of
        :data:`harmonicvae.names.HISTORY_COLUMNS` after every epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from harmonicvae.models import HarmonicVAE
    >>> rows = []
    >>> vae = HarmonicVAE(max_epochs=2, hidden_dims=(), callbacks=[EpochHook(rows.append)])
    >>> _ = vae.fit(np.eye(3))
    >>> [row["epoch"] for row in rows]
    [1, 2]
    """

    def __init__(self, function: Callable[[Mapping[str, float]], Any]) -> None:
        self.function = function

    def __sklearn_clone__(self) -> EpochHook:
        """Return a hook of the same function: a copy of a logger would log nowhere."""
        return EpochHook(self.function)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Hand the last row of the history over."""
        self.function(history_row(net.history[-1]))


class CheckpointWriter(Callback):
    """Write everything needed to continue training, atomically, every few epochs.

    Parameters
    ----------
    path : path-like
        File to write; a former one is replaced only when the new one is complete.
    every : int
        Epochs between two writes; the last epoch is always written.
    context : dict
        What must match when training is resumed (parameters, digest of the data).
    """

    def __init__(self, path: str | os.PathLike[str], every: int, context: dict[str, Any]) -> None:
        self.path = path
        self.every = every
        self.context = context

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write at the multiples of ``every``."""
        if len(net.history) % self.every == 0:
            self.write(net)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Write the last state."""
        self.write(net)

    def write(self, net: Any) -> None:
        """Write the net's present state through a temporary file in the same folder."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(partial, "wb") as stream:
                torch.save({"context": self.context, **net.training_state()}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def history_row(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of one epoch of a skorch history under our names."""
    return {key: epoch[key] for key in names.HISTORY_COLUMNS if key in epoch}


class VAENet(NeuralNet):
    """skorch net whose batches come from :class:`RowBatches` and whose loss is the ELBO's.

    Losses stay on the device until the epoch ends.  Callbacks for batch events cost
    only where a callback listens to them.
    """

    #: Generators of the permutations (CPU) and of the noise (device); set by the estimator.
    order_generator_: torch.Generator | None = None
    noise_generator_: torch.Generator | None = None
    validation_seed_: int = 0
    #: Batch events that some callback listens to.
    listened_events_: frozenset[str] = frozenset()

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [("print_log", PrintLog(keys_ignored=[names.EPOCH_SECONDS]))] if self.verbose else []

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        """Wrap rows for skorch's callbacks."""
        return X if isinstance(X, RowDataset) else RowDataset(X)

    def get_iterator(self, dataset: RowDataset, training: bool = False) -> RowBatches:
        """Return batches of the data set: shuffled and complete ones for training."""
        return RowBatches(
            dataset.X,
            batch_size=self.batch_size,
            device=torch.device(self.device),
            generator=self.order_generator_ if training else None,
            drop_last=training,
            reuse_buffer=training and not self.listened_events_,
        )

    def _listeners(self) -> frozenset[str]:
        """Return the batch events that some callback overrides."""
        return frozenset(
            event
            for event in _BATCH_EVENTS
            for _, callback in getattr(self, "callbacks_", [])
            if getattr(type(callback), event, None) is not getattr(Callback, event)
        )

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Tell the callbacks; batch events only if one of them listens.

        skorch's EarlyStopping asks for an end by raising KeyboardInterrupt in
        ``on_epoch_end``; one raised anywhere else is the user's Ctrl-C and passed on.
        """
        if method_name in _BATCH_EVENTS and not self.listened_events_:
            return
        if method_name != "on_epoch_end":
            super().notify(method_name, **cb_kwargs)
            return
        stop = False
        for _, callback in self.callbacks_:
            try:
                callback.on_epoch_end(self, **cb_kwargs)
            except KeyboardInterrupt as interrupt:
                if not _asks_to_stop(callback, interrupt):
                    raise
                stop = True
        if stop:
            raise _StopTraining

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute loss and gradients of one batch."""
        terms = self.criterion_(self.module_, batch[0], self.noise_generator_, training=True)
        terms[0].backward()
        return {"loss": terms[0], "y_pred": None, "terms": [term.detach() for term in terms]}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the loss of one held-out batch, without input noise."""
        with torch.no_grad():
            terms = self.criterion_(
                self.module_, batch[0], self._validation_generator, training=False
            )
        return {"loss": terms[0], "y_pred": None, "terms": list(terms)}

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run all batches of one epoch and record its weighted mean figures."""
        if iterator is None:
            return
        started = time.perf_counter()
        self._set_training(training)
        if not training:  # the same noise every epoch, so that epochs can be compared
            self._validation_generator = torch.Generator(torch.device(self.device))
            self._validation_generator.manual_seed(self.validation_seed_)
        if self.listened_events_:
            step_fn = self._told(step_fn, prefix, training)
        elif training:
            step_fn = self._plain_step
        terms, sizes = [], []
        for batch in iterator:
            terms += step_fn(batch, **fit_params)["terms"]
            sizes.append(len(batch[0]))
        batches = torch.stack(terms).reshape(-1, 3).to("cpu", torch.float64)
        self._record_epoch(prefix, batches, sizes, time.perf_counter() - started)

    def _plain_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take one step without skorch's closure, which only listeners need."""
        self.optimizer_.zero_grad(set_to_none=True)
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step

    def _told(self, step_fn: Any, prefix: str, training: bool) -> Any:
        """Return a step that tells the callbacks of every batch."""

        def step_and_tell(batch: Any, **fit_params: Any) -> dict[str, Any]:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            self.history.record_batch(prefix + "_loss", step["loss"].item())
            self.history.record_batch(prefix + "_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
            return step

        return step_and_tell

    def _record_epoch(
        self, prefix: str, terms: torch.Tensor, sizes: list[int], seconds: float
    ) -> None:
        """Record the epoch's means and refuse a loss that is no number."""
        weights = torch.tensor(sizes, dtype=torch.float64)
        means = (terms * weights[:, None]).sum(0) / weights.sum()
        loss, squared_error, kl = means.tolist()
        key = f"{prefix}_loss"
        previous = [row[key] for row in self.history[:-1] if key in row]
        self.history.record(prefix + "_batch_count", len(sizes))
        self.history.record(key, loss)
        self.history.record(key + "_best", all(loss < other for other in previous))
        if prefix == "train":
            self.history.record(names.TRAIN_RECONSTRUCTION, squared_error)
            self.history.record(names.TRAIN_KL, kl)
            self.history.record(names.EPOCH_SECONDS, seconds)
            self.history.record("dur", seconds)
        if not torch.isfinite(means).all():
            lr = self.optimizer_.param_groups[0]["lr"]
            raise DivergenceError(
                f"{key} became {loss!r} in epoch {len(self.history)}; try a smaller lr "
                f"(now {lr:g}), scale X to [-1, 1], or a larger encoder_std"
            )

    def train(self, dataset: RowDataset, validation: RowDataset | None, epochs: int) -> VAENet:
        """Run up to ``epochs`` epochs; a callback may stop earlier, Ctrl-C is passed on."""
        self.train_split = None if validation is None else _FixedSplit(validation)
        self.listened_events_ = self._listeners()
        self.notify("on_train_begin", X=dataset, y=None)
        with contextlib.suppress(_StopTraining):
            self.fit_loop(dataset, None, epochs=epochs)
        self.notify("on_train_end", X=dataset, y=None)
        self.train_split = None
        return self

    def training_state(self) -> dict[str, Any]:
        """Return module, optimiser, generators and history, for a checkpoint."""
        assert self.order_generator_ is not None
        assert self.noise_generator_ is not None
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "order_generator": self.order_generator_.get_state(),
            "noise_generator": self.noise_generator_.get_state(),
            "history": [history_row(row) for row in self.history],
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`training_state`."""
        assert self.order_generator_ is not None
        assert self.noise_generator_ is not None
        self.module_.load_state_dict(state["module"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.order_generator_.set_state(state["order_generator"])
        self.noise_generator_.set_state(state["noise_generator"])
        for row in state["history"]:
            self.history.new_epoch()
            for key, value in row.items():
                self.history.record(key, value)


class _StopTraining(Exception):
    """A callback asked to stop after the present epoch."""


def _asks_to_stop(callback: Any, interrupt: KeyboardInterrupt) -> bool:
    """Tell a callback's own ``raise KeyboardInterrupt`` from the user's Ctrl-C."""
    if isinstance(callback, (EpochHook, CheckpointWriter)):
        return False
    trace = interrupt.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_locals.get("self") is callback


class _FixedSplit:
    """Hand skorch a validation set chosen beforehand."""

    def __init__(self, validation: RowDataset) -> None:
        self.validation = validation

    def __call__(self, dataset: RowDataset, y: Any = None, **_: Any) -> tuple[Any, Any]:
        return dataset, self.validation
