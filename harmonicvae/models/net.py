"""The skorch net inside the estimator: skorch's loop and callbacks, our batches and objective."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, PrintLog

from harmonicvae import names
from harmonicvae.exceptions import DivergenceError, InputError
from harmonicvae.models import callback_states, resuming
from harmonicvae.models.batches import RowBatches, RowDataset
from harmonicvae.models.interrupts import StopTraining, asks_to_stop

#: Seconds between two checkpoints at least, where their frequency is "auto".
CHECKPOINT_SECONDS = 2.0
_BATCH_EVENTS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


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
    every : int or "auto"
        Epochs between two writes; the last epoch is always written.  "auto" writes after
        every epoch that ends :data:`CHECKPOINT_SECONDS` or more after the last write, and
        spends at most a twentieth of the time on writing.
    context : dict
        What must match when training is resumed (parameters, digest of the data).
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int | str, context: dict[str, Any]
    ) -> None:
        self.path = path
        self.every = every
        self.context = context
        self._next = time.monotonic() + CHECKPOINT_SECONDS

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write at the multiples of ``every``, or when it is time again."""
        started = time.monotonic()
        if isinstance(self.every, int):
            if len(net.history) % self.every == 0:
                self.write(net)
        elif started >= self._next:
            self.write(net)
            ended = time.monotonic()
            self._next = ended + max(CHECKPOINT_SECONDS, 20 * (ended - started))

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
                torch.save({"context": self.context, **resuming.training_state(net)}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def history_row(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of one epoch of a skorch history under our names."""
    return {key: epoch[key] for key in names.HISTORY_COLUMNS if key in epoch}


def copy_callbacks(callbacks: Any) -> list[Any]:
    """Return copies of the user's callbacks as skorch takes them.

    Parameters
    ----------
    callbacks : list or None
        skorch callbacks, their classes, or pairs (name, one of both).

    Returns
    -------
    list

    Raises
    ------
    InputError
        If it is no list, or an item is none of these.
    """
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        raise InputError(f"callbacks must be a list of skorch callbacks, got {callbacks!r}")
    copies = [_copy_callback(item) for item in callbacks]
    given = [item[0] for item in copies if isinstance(item, tuple)]
    if len(set(given)) < len(given):
        raise InputError(f"callbacks must have different names, got {given}")
    pairs = [(_bare(item), _bare(copied)) for item, copied in zip(callbacks, copies)]
    copy_of = {id(callback): copied for callback, copied in pairs}
    for callback, copied in pairs:  # one may hold another, as LoadInitState its checkpoint
        own = {} if isinstance(callback, type) else vars(callback)
        for key, value in own.items():
            if id(value) in copy_of:
                setattr(copied, key, copy_of[id(value)])
    return copies


def _bare(item: Any) -> Any:
    """Return a callback without the name it may be given with."""
    return item[1] if isinstance(item, tuple) else item


def _copy_callback(item: Any) -> Any:
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        return item[0], _copy_callback(item[1])
    if isinstance(item, type) and issubclass(item, Callback):
        return item
    if not isinstance(item, Callback):
        raise InputError(
            "callbacks must hold skorch callbacks, their classes or (name, callback) pairs, "
            f"got {item!r}"
        )
    try:
        return clone(item)
    except (TypeError, RuntimeError):  # attributes that are no parameters of its __init__
        return copy.deepcopy(item)


class VAENet(NeuralNet):
    """skorch net whose batches come from :class:`RowBatches` and whose loss is the ELBO's.

    Losses stay on the device until the epoch ends, and the history holds one batch row a
    pass.  Only where a callback listens to batch events is it told of every batch: with
    the samples as target, and as y_pred the g(z) of the loss in training, the
    reconstruction through the mean code for held-out samples.
    """

    #: Generators of the permutations (CPU) and of the noise (device); set by the estimator.
    order_generator_: torch.Generator | None = None
    noise_generator_: torch.Generator | None = None
    validation_seed_: int = 0
    #: Batch events that some callback listens to.
    listened_events_: frozenset[str] = frozenset()
    #: Names of the callbacks that asked to stop.
    stopped_by_: Sequence[str] = ()
    #: What each callback held when training began, to tell what it remembers.
    callback_snapshots_: Mapping[str, Any] = MappingProxyType({})

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
        The checkpoint is written before other callbacks replace the last weights.
        """
        if method_name in _BATCH_EVENTS and not self.listened_events_:
            return
        if method_name == "on_epoch_end":
            self._end_epoch(**cb_kwargs)
        elif method_name == "on_train_end":
            for _, callback in sorted(self.callbacks_, key=_writes_no_checkpoint):
                callback.on_train_end(self, **cb_kwargs)
        else:
            super().notify(method_name, **cb_kwargs)

    def _end_epoch(self, **cb_kwargs: Any) -> None:
        """Tell every callback that the epoch ended, then stop if one asks to."""
        for name, callback in self.callbacks_:
            try:
                callback.on_epoch_end(self, **cb_kwargs)
            except KeyboardInterrupt as interrupt:
                if not asks_to_stop(callback, interrupt):
                    raise
                self.stopped_by_ = [*self.stopped_by_, name]
        if self.stopped_by_:
            raise StopTraining

    def _backward(self, batch: Any) -> tuple[torch.Tensor, ...]:
        """Return the loss' terms and g(z) of one batch after computing gradients."""
        terms = self.criterion_(self.module_, batch[0], self.noise_generator_, training=True)
        terms[0].backward()
        return terms

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute loss and gradients of one batch; y_pred is the g(z) of the loss."""
        *terms, output = self._backward(batch)
        return {
            "loss": terms[0],
            "y_pred": output.detach(),
            "terms": [term.detach() for term in terms],
        }

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the loss of one held-out batch, without input noise.

        y_pred is the reconstruction through the mean code, as ``predict`` returns it.
        """
        with torch.no_grad():
            *terms, _ = self.criterion_(
                self.module_, batch[0], self._validation_generator, training=False
            )
            y_pred = self.infer(batch[0]) if "on_batch_end" in self.listened_events_ else None
        return {"loss": terms[0], "y_pred": y_pred, "terms": terms}

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
        self.record_epoch(prefix, batches, sizes, time.perf_counter() - started)

    def _plain_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take one step without skorch's closure and y_pred, which only listeners need."""
        self.optimizer_.zero_grad(set_to_none=True)
        terms = self._backward(batch)
        self.optimizer_.step()
        return {"terms": [term.detach() for term in terms[:3]]}

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

    def record_epoch(
        self, prefix: str, terms: torch.Tensor, sizes: list[int], seconds: float
    ) -> None:
        """Record the means of (batches, 3) figures and refuse a loss that is no number."""
        weights = torch.tensor(sizes, dtype=torch.float64)
        means = (terms * weights[:, None]).sum(0) / weights.sum()
        loss, squared_error, kl = means.tolist()
        key = f"{prefix}_loss"
        previous = [row[key] for row in self.history[:-1] if key in row]
        self.history.record(prefix + "_batch_count", len(sizes))
        self.history.record(key, loss)
        if not self.listened_events_:
            self.summarise_batches(prefix, loss, sum(sizes))
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

    def summarise_batches(self, prefix: str, loss: float, rows: int) -> None:
        """Record one batch row for a whole pass: skorch's checkpoints read the last one."""
        self.history.new_batch()
        self.history.record_batch(prefix + "_loss", loss)
        self.history.record_batch(prefix + "_batch_size", rows)

    def train(
        self,
        dataset: RowDataset,
        validation: RowDataset | None,
        epochs: int,
        resumed: Mapping[str, Any] | None = None,
    ) -> VAENet:
        """Run up to ``epochs`` epochs; a callback may stop earlier, Ctrl-C is passed on.

        ``resumed`` is the state that :func:`resuming.load_training_state` took before.
        """
        self.train_split = None if validation is None else _FixedSplit(validation)
        self.begin_training(dataset, resumed)
        with contextlib.suppress(StopTraining):
            self.fit_loop(dataset, None, epochs=0 if self.stopped_by_ else epochs)
        self.end_training(dataset)
        self.train_split = None
        return self

    def begin_training(self, dataset: RowDataset, resumed: Mapping[str, Any] | None) -> None:
        """Tell the callbacks that training begins, or give them their memory back."""
        self.listened_events_ = self._listeners()
        self.notify("on_train_begin", X=dataset, y=None)
        self.callback_snapshots_ = {
            name: callback_states.observe(callback) for name, callback in self.remembering()
        }
        if resumed is not None:
            resuming.resume_callbacks(self, resumed)

    def end_training(self, dataset: RowDataset) -> None:
        """Tell the callbacks that training ended."""
        self.notify("on_train_end", X=dataset, y=None)
        self.callback_snapshots_ = {}

    def remembering(self) -> list[tuple[str, Any]]:
        """Return the callbacks whose memory a checkpoint keeps, by name."""
        return [
            (name, callback)
            for name, callback in self.callbacks_
            if not isinstance(callback, (CheckpointWriter, PrintLog))
        ]


def _writes_no_checkpoint(named: tuple[str, Any]) -> bool:
    return not isinstance(named[1], CheckpointWriter)


class _FixedSplit:
    """Hand skorch a validation set chosen beforehand."""

    def __init__(self, validation: RowDataset) -> None:
        self.validation = validation

    def __call__(self, dataset: RowDataset, y: Any = None, **_: Any) -> tuple[Any, Any]:
        return dataset, self.validation
