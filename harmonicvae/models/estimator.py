"""The scikit-learn estimator: a variational autoencoder with chosen encoder and input noise."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import torch

from harmonicvae.models import parameters as checks
from harmonicvae.models.batches import RowDataset
from harmonicvae.models.checkpoints import check_resumable, read_checkpoint
from harmonicvae.models.diagnostics import diagnose_collapse
from harmonicvae.models.fitting import (
    build_net,
    history_frame,
    hold_out,
    resume_context,
    seeded_generators,
    warn_of_collapse,
)
from harmonicvae.models.inference import FittedVAE
from harmonicvae.models.inputs import check_rows
from harmonicvae.models.modules import EncoderSpread, GaussianVAE, VAEModule
from harmonicvae.models.net import VAENet
from harmonicvae.models.resuming import load_training_state

#: Parameters that mean something to one fit only.
_FIT_PARAMETERS = ("callbacks", "checkpoint_path", "random_state")


class HarmonicVAE(FittedVAE):
    """Variational autoencoder with a chosen encoder standard deviation and input noise.

    The code is z ~ N(μ(x), σ_enc²·I) with σ_enc fixed (or learned), the prior N(0, I), the
    training loss ‖x − g(z)‖² + KL.  A larger σ_enc smooths the decoder, more noise σ_N on
    the input in training smooths the encoder.

    Parameters
    ----------
    latent_dim : int ≥ 1, default=2
        Latent units m.
    hidden_dims : sequence of int ≥ 1, default=(256, 256, 256)
        Hidden widths of the encoder; the decoder has them in reverse.  May be empty.
    activation : str, default="sigmoid"
        "sigmoid", "tanh", "relu", "softplus", "elu", "silu" or "gelu".
    encoder_std : float > 0 or "learned", default=0.5
        σ_enc of the code; "learned" makes it an output σ(x) of the encoder.
    input_noise_std : float ≥ 0, default=0.0
        σ_N of the Gaussian noise added to the encoder's input in training, in units of X.
    reconstruction_target : {"clean", "noisy"}, default="clean"
        Whether the decoder is to restore the clean or the noisy input.
    max_epochs : int ≥ 0, default=100
        Passes over the data.
    batch_size : int ≥ 1, default=256
        Samples a step; an incomplete last batch is dropped (unless it is the only one).
    lr : float > 0, default=1e-3
        Learning rate of Adam (torch's defaults otherwise).
    kl_weight : float > 0, default=1.0
        w in the training loss ‖x − g(z)‖² + w·KL (the study's has w = 1).  The loss is up
        to a constant and a factor the negative ELBO of a Gaussian decoder of variance w/2;
        w = 2 trains for the bound that :meth:`score` reports.
    elbo_samples : int ≥ 1, default=8
        Codes a sample drawn in :meth:`score_samples`, in antithetic pairs.
    validation_fraction : float in [0, 1), default=0.0
        Share of X held out for ``valid_loss``, drawn by ``random_state``; at least one row
        if > 0.
    callbacks : list of skorch callbacks or None, default=None
        Used in fit as copies, e.g. ``skorch.callbacks.EarlyStopping``; also their classes
        and pairs (name, callback).  One that listens to batches sees the samples as
        target; its ``y_pred`` is the reconstruction g(z) of the loss in training, that
        through the mean code for held-out samples.  One stops training by raising
        KeyboardInterrupt in ``on_epoch_end``.
    checkpoint_path : path-like or None, default=None
        File from which training can be resumed (``fit(X, resume_from=...)``).
    checkpoint_every : int ≥ 1 or "auto", default=10
        Epochs between two writes of the checkpoint; "auto" writes after each epoch, where
        epochs are short every 2 s and as seldom as keeps the cost below 5 %.
    reproduction_errors : sequence of str, default=()
        Errors of the 2022 reproduction to make on purpose, by name; see
        :data:`harmonicvae.reproduction.TRAINING_ERRORS`.
    random_state : None, int in [0, 2**64), RandomState or Generator, default=None
        Seed of initialisation, batch order and all noise.  None is different every time.
    device : str, default="auto"
        "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Sequential
        x ↦ mean code and code ↦ mean reconstruction, in eval mode.
    history_ : pandas.DataFrame
        One row an epoch: epoch, train_loss, train_squared_error (‖x − g(z)‖² a sample),
        train_kl (nats a sample), valid_loss, epoch_seconds.
    n_iter_ : int
        Epochs trained.
    collapse_ : CollapseDiagnostic
        Active latent units and variance of the decodings; a collapse also warns.
    seed_ : int
        The seed in use.
    net_ : VAENet
        The skorch net.
    n_features_in_ : int
        Features d.
    feature_names_in_ : ndarray of str
        Names of the features, where X had them.

    Notes
    -----
    Cost a step: 6 · parameters · batch_size floating-point operations.  Same seed, same
    machine and thread count: bit-identical weights.  Global generators stay untouched.

    References
    ----------
    Camuto & Willetts, arXiv 2105.14866; Kingma & Welling, arXiv 1312.6114.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data / 8 - 1
    >>> vae = HarmonicVAE(latent_dim=4, max_epochs=2, encoder_std=0.3, random_state=0)
    >>> vae.fit_transform(X).shape
    (1797, 4)
    >>> vae.reconstruct(X[:3]).shape
    (3, 64)
    """

    def __init__(
        self,
        latent_dim: int = 2,
        hidden_dims: Any = (256, 256, 256),
        activation: str = "sigmoid",
        encoder_std: float | str = 0.5,
        input_noise_std: float = 0.0,
        reconstruction_target: str = "clean",
        max_epochs: int = 100,
        batch_size: int = 256,
        lr: float = 1e-3,
        kl_weight: float = 1.0,
        elbo_samples: int = 8,
        validation_fraction: float = 0.0,
        callbacks: Any = None,
        checkpoint_path: Any = None,
        checkpoint_every: int | str = 10,
        reproduction_errors: Any = (),
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden_dims = hidden_dims
        self.activation = activation
        self.encoder_std = encoder_std
        self.input_noise_std = input_noise_std
        self.reconstruction_target = reconstruction_target
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.kl_weight = kl_weight
        self.elbo_samples = elbo_samples
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.checkpoint_path = checkpoint_path
        self.checkpoint_every = checkpoint_every
        self.reproduction_errors = reproduction_errors
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    # ------------------------------------------------------------------ training

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> HarmonicVAE:
        """Train on X.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Samples, best scaled to [−1, 1]; computed with in float32.
        y : ignored
        validation_data : array-like of shape (k, d) or None, default=None
            Samples for ``valid_loss``; takes the place of ``validation_fraction``.
        resume_from : path-like or None, default=None
            Checkpoint to continue from, written by a fit with the same parameters and
            data; the result is that of one uninterrupted fit.  Give the same callbacks:
            they go on with the attributes that training changed, or by their methods
            ``state_dict`` and ``load_state_dict``.

        Returns
        -------
        HarmonicVAE
            self

        Raises
        ------
        InputError
            If a parameter, X or the checkpoint is not valid, or a learning-rate schedule
            is given in only one of the fits that a checkpoint connects, or a callback
            keeps what no checkpoint can hold.
        DivergenceError
            If the loss becomes NaN or infinite.
        """
        params = self._checked_parameters()
        device = checks.check_device(self.device)
        X = check_rows(self, X, reset=True)
        self.seed_ = checks.resolve_seed(self.random_state)
        state = None if resume_from is None else read_checkpoint(resume_from)
        if state is not None:
            self.seed_ = checks.resolve_seed(state["context"]["seed"])
        if validation_data is None:
            train, held_out = hold_out(X, self.validation_fraction, self.seed_)
        else:
            train, held_out = X, check_rows(self, validation_data, reset=False)
        context = resume_context(params, train, self.seed_)
        if state is not None and resume_from is not None:
            check_resumable(state, context, self.max_epochs, resume_from)
        with seeded_generators(self.seed_, device):
            net = self._build_net(params, device, context)
            if state is not None:
                load_training_state(net, state)
            validation = None if held_out is None else RowDataset(held_out)
            net.train(RowDataset(train), validation, self.max_epochs - len(net.history), state)
        self._finish(net, params, train)
        if self.n_iter_:
            warn_of_collapse(self.collapse_)
        return self

    def _finish(self, net: VAENet, params: dict[str, Any], train: Any) -> None:
        """Become fitted by a trained net."""
        self._set_net(net, params)
        self.history_ = history_frame(net.history)
        self.n_iter_ = len(self.history_)
        self.collapse_ = diagnose_collapse(self.encoder_, self.decoder_, train)

    def _checked_parameters(self) -> dict[str, Any]:
        """Return the parameters, none out of range; subclasses check their own too."""
        params = self.get_params(deep=False)
        checks.check_parameters(params)
        return params

    def _network(self, params: dict[str, Any]) -> tuple[type[GaussianVAE], dict[str, Any]]:
        """Return the class of the network and its arguments: all that subclasses change."""
        options = {
            "n_features": self.n_features_in_,
            "latent_dim": params["latent_dim"],
            "hidden_dims": checks.check_hidden_dims(params["hidden_dims"]),
            "activation": params["activation"],
        }
        return VAEModule, options

    def _build_net(
        self, params: dict[str, Any], device: torch.device, context: dict[str, Any] | None
    ) -> VAENet:
        module, options = self._network(params)
        return build_net(
            params,
            module=module,
            module_options=options,
            seed=self.seed_,
            device=device,
            context=context,
        )

    def _set_net(self, net: VAENet, params: dict[str, Any]) -> None:
        """Keep the trained net, without its generators and in eval mode, and its parameters."""
        net.module_.eval()
        net.order_generator_ = net.noise_generator_ = None
        self.net_ = net
        self.encoder_, self.decoder_ = net.module_.encoder, net.module_.decoder
        self._n_features_out = int(params["latent_dim"])
        self._fitted_params = {
            key: value for key, value in params.items() if key not in _FIT_PARAMETERS
        }

    @property
    def encoder_spread_(self) -> float | torch.nn.Module:
        """σ_enc as a number, or a module x ↦ σ(x) where it is learned."""
        if self.net_.module_.log_std is None:
            return float(self._fitted_params["encoder_std"])
        return EncoderSpread(self.net_.module_).eval()

    def restore(
        self, state: dict[str, torch.Tensor], *, history: pd.DataFrame, collapse: Any
    ) -> HarmonicVAE:
        """Become fitted from stored weights; for loaders, not for users.

        Parameters
        ----------
        state : dict of Tensor
            ``state_dict`` of the module.
        history : DataFrame
            :attr:`history_`.
        collapse : CollapseDiagnostic
            :attr:`collapse_`.

        Returns
        -------
        HarmonicVAE
            self
        """
        params = self._checked_parameters()
        self.seed_ = checks.resolve_seed(self.random_state)
        device = checks.check_device(self.device)
        with seeded_generators(self.seed_, device):
            net = self._build_net(params, device, None)
        net.module_.load_state_dict(state)
        self._set_net(net, params)
        self.history_, self.n_iter_, self.collapse_ = history, len(history), collapse
        return self
