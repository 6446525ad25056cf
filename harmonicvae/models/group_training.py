"""The epochs of models trained together: stacks, per-model figures, group checkpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harmonicvae.exceptions import DivergenceError, HarmonicVAEError, InputError
from harmonicvae.models import group_checkpoints
from harmonicvae.models import parameters as checks
from harmonicvae.models.batches import RowDataset
from harmonicvae.models.checkpoints import check_resumable
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.fitting import resume_context, seeded_generators
from harmonicvae.models.groups import stack_size
from harmonicvae.models.net import VAENet, history_row
from harmonicvae.models.resuming import load_training_state, training_state
from harmonicvae.models.stacks import ModelStack, shared_batches

#: How the reason of a diverged model begins in a group's checkpoint.
_DIVERGED = f"{DivergenceError.__name__}: "


class Member:
    """One estimator of a group, with the net that is being trained for it.

    Parameters
    ----------
    estimator : HarmonicVAE
        ``n_features_in_`` is set.
    key : str
        Its name in checkpoints.
    hook : callable or None
        Called as ``hook(row)`` after every epoch, like
        :class:`harmonicvae.models.EpochHook`.

    Attributes
    ----------
    failure : Exception or None
        Why the model ended early; its slice is then computed, but not looked at any more.
    net : VAENet
        After :meth:`build`.
    """

    net: VAENet

    def __init__(
        self,
        estimator: HarmonicVAE,
        key: str,
        hook: Callable[[Mapping[str, float]], Any] | None,
    ) -> None:
        self.estimator = estimator
        self.key = key
        self.hook = hook
        self.params = estimator.get_params(deep=False)
        self.device = checks.check_device(self.params["device"])
        self.failure: Exception | None = None
        self._context: dict[str, Any] = {}
        self._global_state = torch.empty(0)

    def build(self, X: Any, state: dict[str, Any] | str | None, source: str) -> None:
        """Draw the initial weights as :meth:`HarmonicVAE.fit` does, or take a state up.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32, or ScaledImages
        state : dict, str or None
            Of a checkpoint; a string says why the model failed before.
        source : str
            Path of the checkpoint, for messages.

        Raises
        ------
        InputError
            If the state belongs to other parameters, another seed or other data.
        """
        estimator = self.estimator
        estimator.seed_ = checks.resolve_seed(self.params["random_state"])
        if isinstance(state, str):
            self.failure, state = _failure(state), None
        elif state is not None:
            estimator.seed_ = checks.resolve_seed(state["context"]["seed"])
        self._context = resume_context(self.params, X, estimator.seed_)
        if state is not None:
            check_resumable(state, self._context, self.params["max_epochs"], source)
        with seeded_generators(estimator.seed_, self.device):
            self.net = estimator._build_net(self.params, self.device, None)
            if state is not None:
                load_training_state(self.net, state)
            self.net.begin_training(RowDataset(X), state)
            self._global_state = torch.get_rng_state()

    def begin_epoch(self, dataset: RowDataset) -> None:
        """Open a row of the history."""
        if self.failure is None:
            self.net.notify("on_epoch_begin", dataset_train=dataset, dataset_valid=None)

    def end_epoch(
        self, dataset: RowDataset, terms: torch.Tensor, sizes: list[int], seconds: float
    ) -> None:
        """Record the epoch's figures and tell the hooks; an error ends this model only."""
        if self.failure is not None:
            return
        try:
            self.net.record_epoch("train", terms, sizes, seconds)
            self.net.notify("on_epoch_end", dataset_train=dataset, dataset_valid=None)
            if self.hook is not None:
                self.hook(history_row(self.net.history[-1]))
        except Exception as error:  # of any kind, as hooks are the caller's own
            self.failure = error

    def state(self) -> dict[str, Any] | str:
        """Return what a checkpoint holds: the state, or why the model failed."""
        if self.failure is not None:
            return f"{type(self.failure).__name__}: {self.failure}"
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._global_state)
            return {"context": self._context, **training_state(self.net)}

    def finish(self, X: Any) -> None:
        """Make the estimator fitted."""
        self.net.end_training(RowDataset(X))
        self.estimator._finish(self.net, self.params, X)


def _failure(reason: str) -> Exception:
    """Return the error that a checkpoint tells of."""
    if reason.startswith(_DIVERGED):
        return DivergenceError(reason.removeprefix(_DIVERGED))
    return HarmonicVAEError(f"failed before the checkpoint: {reason}")


class GroupTraining:
    """Train the members of one group, epoch by epoch, all at the same epoch.

    Parameters
    ----------
    members : sequence of Member
        Of estimators that can be trained together.
    X : ndarray of shape (n, d), float32, or ScaledImages
    folder : Path or None
        Of the group's checkpoint.
    seconds : float ≥ 0
        Least time between two checkpoints.
    """

    def __init__(
        self, members: Sequence[Member], X: Any, folder: Path | None, seconds: float
    ) -> None:
        self.members = members
        self.X = X
        self.folder = folder
        self.seconds = seconds
        self.max_epochs = int(members[0].params["max_epochs"])

    def run(self) -> None:
        """Train, or go on training, to the last epoch; each member ends fitted or failed.

        Raises
        ------
        InputError
            If the folder holds a checkpoint that is damaged or of another group.
        """
        done = self._build()
        if done < self.max_epochs and self._alive(self.members):
            stacks = list(self._stacks())
            self._train(stacks, done)
            for stack, _ in stacks:
                stack.release()
        for member in self._alive(self.members):
            member.finish(self.X)

    @staticmethod
    def _alive(members: Sequence[Member]) -> list[Member]:
        return [member for member in members if member.failure is None]

    def _build(self) -> int:
        """Build every net, from the checkpoint if there is one; return the epochs done."""
        keys = [member.key for member in self.members]
        path = None if self.folder is None else group_checkpoints.newest_checkpoint(self.folder)
        states = {} if path is None else group_checkpoints.read_group(path, keys)
        for member in self.members:
            try:
                member.build(self.X, states.get(member.key), f"{path}, model {member.key}")
            except InputError as error:
                if path is None:
                    raise
                raise InputError(
                    f"{error} (delete {os.fspath(path)!r} to train anew, or give another "
                    "checkpoint_dir)"
                ) from error
        return max((len(member.net.history) for member in self._alive(self.members)), default=0)

    def _stacks(self) -> Iterator[tuple[ModelStack, Sequence[Member]]]:
        """Yield the stacks with their members; failed ones keep their place in them."""
        params = self.members[0].params
        batches = shared_batches(self.members[0].net, self.X)
        size = stack_size(
            len(self.members),
            self.X.shape[1],
            latent_dim=params["latent_dim"],
            hidden_dims=params["hidden_dims"],
            batch_size=batches.batch_size,
            device=batches.device,
        )
        for start in range(0, len(self.members), size):
            part = self.members[start : start + size]
            yield ModelStack([member.net for member in part], batches), part

    def _train(self, stacks: list[tuple[ModelStack, Sequence[Member]]], done: int) -> None:
        dataset, written = RowDataset(self.X), time.monotonic()
        for epoch in range(done + 1, self.max_epochs + 1):
            for stack, part in stacks:
                if self._alive(part):
                    self._epoch(stack, part, dataset)
            last = epoch == self.max_epochs or not self._alive(self.members)
            if last or time.monotonic() - written >= self.seconds:
                self._write(epoch)
                written = time.monotonic()
            if last:
                return

    @staticmethod
    def _epoch(stack: ModelStack, part: Sequence[Member], dataset: RowDataset) -> None:
        for member in part:
            member.begin_epoch(dataset)
        terms, sizes, seconds = stack.epoch()
        for k, member in enumerate(part):
            member.end_epoch(dataset, terms[:, :, k], sizes, seconds / len(part))

    def _write(self, epoch: int) -> None:
        if self.folder is not None:
            entries = ((member.key, member.state()) for member in self.members)
            group_checkpoints.write_group(self.folder, epoch, entries)
