"""The scikit-learn estimator: a variational autoencoder with chosen encoder and input noise."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from harmonicvae import names
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import CollapseWarning, InputError
from harmonicvae.models import parameters as checks
from harmonicvae.models.batches import RowDataset
from harmonicvae.models.checkpoints import check_resumable, content_digest, read_checkpoint
from harmonicvae.models.diagnostics import diagnose_collapse
from harmonicvae.models.modules import VAEModule
from harmonicvae.models.net import CheckpointWriter, StudyLoss, VAENet, history_row
from harmonicvae.models.objective import draw_code, gaussian_log_likelihood, kl_divergence
from harmonicvae.reproduction import TRAINING_ERRORS, check_reproduction_errors

#: Rows a forward pass outside training takes at once.
CHUNK_ROWS = 1024


class HarmonicVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
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
        Share of X held out for ``valid_loss``, drawn by ``random_state``.
    callbacks : list of skorch callbacks or None, default=None
        Used in fit as copies, e.g. ``skorch.callbacks.EarlyStopping``.
    checkpoint_path : path-like or None, default=None
        File from which training can be resumed (``fit(X, resume_from=...)``).
    checkpoint_every : int ≥ 1, default=10
        Epochs between two writes of the checkpoint.
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
        checkpoint_every: int = 10,
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
            data; the result is that of one uninterrupted fit.  Early-stopping counters
            start anew.

        Returns
        -------
        HarmonicVAE
            self

        Raises
        ------
        InputError
            If a parameter, X or the checkpoint is not valid.
        DivergenceError
            If the loss becomes NaN or infinite.
        """
        self._check_parameters()
        X = self._check_X(X, reset=True)
        self.seed_ = checks.resolve_seed(self.random_state)
        train, held_out = self._split(X, validation_data)
        device = checks.check_device(self.device)
        context = self._resume_context(train)
        state = None
        if resume_from is not None:
            state = read_checkpoint(resume_from)
            check_resumable(state["context"], context, resume_from)
            self.seed_ = state["context"]["seed"]
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            net = self._build_net(device, context | {"seed": self.seed_})
            if state is not None:
                net.load_training_state(state)
            validation = None if held_out is None else RowDataset(held_out)
            net.train(RowDataset(train), validation, self.max_epochs - len(net.history))
        self._finish(net, train)
        return self

    def _check_parameters(self) -> None:
        """Refuse parameters out of range; ``__init__`` only stores them."""
        checks.check_integer("latent_dim", self.latent_dim, 1)
        checks.check_hidden_dims(self.hidden_dims)
        checks.check_activation(self.activation)
        checks.check_encoder_std(self.encoder_std)
        checks.check_real("input_noise_std", self.input_noise_std, 0)
        checks.check_choice("reconstruction_target", self.reconstruction_target, ("clean", "noisy"))
        checks.check_integer("max_epochs", self.max_epochs, 0)
        checks.check_integer("batch_size", self.batch_size, 1)
        checks.check_real("lr", self.lr, 0, open_interval=True)
        checks.check_real("kl_weight", self.kl_weight, 0, open_interval=True)
        checks.check_integer("elbo_samples", self.elbo_samples, 1)
        checks.check_integer("checkpoint_every", self.checkpoint_every, 1)
        if not 0 <= checks.check_real("validation_fraction", self.validation_fraction, 0) < 1:
            raise InputError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction!r}"
            )
        check_reproduction_errors(self.reproduction_errors, TRAINING_ERRORS)

    def _check_X(
        self, X: Any, *, reset: bool, dtype: Any = np.float32
    ) -> np.ndarray | ScaledImages:
        """Return X as rows of floats; 8-bit images stay as they are."""
        if isinstance(X, ScaledImages):
            return self._check_images(X, reset=reset)
        try:
            return validate_data(self, X, reset=reset, dtype=dtype, order="C")
        except ValueError as error:
            raise InputError(str(error)) from error

    def _check_images(self, X: ScaledImages, *, reset: bool) -> ScaledImages:
        """Do for images what scikit-learn's validate_data does, without copying them."""
        if X.shape[0] == 0:
            raise InputError("Found array with 0 sample(s) while a minimum of 1 is required.")
        if reset:
            self.n_features_in_ = X.shape[1]
            self.__dict__.pop("feature_names_in_", None)
        elif X.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return X

    def _split(self, X: Any, validation_data: Any) -> tuple[Any, Any]:
        """Return training rows and held-out rows (None without validation)."""
        if validation_data is not None:
            return X, self._check_X(validation_data, reset=False)
        held_out = round(self.validation_fraction * X.shape[0])
        if held_out == 0:
            return X, None
        if held_out == X.shape[0]:
            raise InputError(
                f"validation_fraction={self.validation_fraction!r} leaves no training sample "
                f"of {X.shape[0]}; give more samples or a smaller fraction"
            )
        order = torch.randperm(X.shape[0], generator=checks.generator(self.seed_, "split")).numpy()
        return X[np.sort(order[held_out:])], X[np.sort(order[:held_out])]

    def _resume_context(self, X: Any) -> dict[str, Any]:
        """Return what must be equal for a resumed fit to mean the same."""
        skipped = {"max_epochs", "callbacks", "checkpoint_path", "checkpoint_every", "verbose"}
        skipped |= {"device", "elbo_samples", "random_state"}
        kept = {
            key: value for key, value in self.get_params(deep=False).items() if key not in skipped
        }
        kept["hidden_dims"] = checks.check_hidden_dims(self.hidden_dims)
        kept["reproduction_errors"] = sorted(self.reproduction_errors or ())
        integer = isinstance(self.random_state, (int, np.integer))
        return {
            "parameters": kept,
            "random_state": int(self.random_state) if integer else None,
            "data": content_digest(X),
        }

    def _build_net(self, device: torch.device, context: dict[str, Any]) -> VAENet:
        """Return an initialised net; draws from torch's (forked) global generator."""
        torch.manual_seed(self.seed_)
        switches = check_reproduction_errors(self.reproduction_errors, TRAINING_ERRORS)
        std = checks.check_encoder_std(self.encoder_std)
        net = VAENet(
            VAEModule,
            module__n_features=self.n_features_in_,
            module__latent_dim=self.latent_dim,
            module__hidden_dims=checks.check_hidden_dims(self.hidden_dims),
            module__activation=self.activation,
            module__learned_std=std is None,
            criterion=StudyLoss,
            criterion__encoder_std=std,
            criterion__input_noise_std=float(self.input_noise_std),
            criterion__noisy_target=self.reconstruction_target == "noisy"
            or "noisy_target" in switches,
            criterion__kl_weight=float(self.kl_weight),
            criterion__switches=switches,
            optimizer=torch.optim.Adam,
            optimizer__fused=True,
            lr=float(self.lr),
            batch_size=self.batch_size,
            callbacks=self._callback_copies(context),
            device=str(device),
            verbose=self.verbose,
            train_split=None,
        )
        net.order_generator_ = checks.generator(self.seed_, "order")
        net.noise_generator_ = checks.generator(self.seed_, "noise", device)
        net.validation_seed_ = checks.derived_seed(self.seed_, "validation")
        return net.initialize()

    def _callback_copies(self, context: dict[str, Any]) -> list[Any]:
        """Return copies of the callbacks, the checkpoint's writer last."""
        copies = [
            clone(item) if hasattr(item, "get_params") else copy.deepcopy(item)
            for item in self.callbacks or []
        ]
        if self.checkpoint_path is not None:
            path = os.fspath(self.checkpoint_path)
            copies.append(CheckpointWriter(path, self.checkpoint_every, context))
        return copies

    def _finish(self, net: VAENet, X: Any) -> None:
        """Set the fitted attributes and warn of a collapse."""
        self._set_net(net)
        rows = [history_row(epoch) for epoch in net.history]
        self.history_ = pd.DataFrame(
            rows, columns=[c for c in names.HISTORY_COLUMNS if not rows or c in rows[-1]]
        )
        self.n_iter_ = len(rows)
        self.collapse_ = diagnose_collapse(self.encoder_, self.decoder_, X)
        if self.collapse_.collapsed and self.n_iter_:
            ratio = self.collapse_.decoding_variance_ratio
            warnings.warn(
                f"the decoder ignores its code: {self.collapse_.active_units} of "
                f"{self.latent_dim} latent units active, decodings show {ratio:.2%} of the "
                "data's variance; train longer, try another random_state, a smaller "
                "encoder_std or fewer hidden layers",
                CollapseWarning,
                stacklevel=3,
            )

    def _set_net(self, net: VAENet) -> None:
        """Keep the trained net, without its generators and in eval mode."""
        net.module_.eval()
        net.order_generator_ = net.noise_generator_ = None
        self.net_ = net
        self.encoder_, self.decoder_ = net.module_.encoder, net.module_.decoder
        self._n_features_out = self.latent_dim

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
        self._check_parameters()
        self.seed_ = checks.resolve_seed(self.random_state)
        device = checks.check_device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            net = self._build_net(device, {})
        net.module_.load_state_dict(state)
        self._set_net(net)
        self.history_, self.n_iter_, self.collapse_ = history, len(history), collapse
        return self

    # ----------------------------------------------------------------- inference

    def _apply(self, function: Any, X: Any, width: int | None) -> np.ndarray:
        """Run a float64 torch function over chunks of rows; width None means a scalar a row.

        float32 would make a row's result depend on the rows beside it in the chunk.
        """
        device = next(self.encoder_.parameters()).device
        out = np.empty((X.shape[0],) if width is None else (X.shape[0], width))
        with torch.no_grad():
            for start in range(0, X.shape[0], CHUNK_ROWS):
                rows = np.asarray(X[start : start + CHUNK_ROWS])
                x = torch.tensor(rows, device=device, dtype=torch.float64)
                out[start : start + CHUNK_ROWS] = function(x).cpu()
        return out

    @staticmethod
    def _like(result: np.ndarray, X: Any) -> np.ndarray:
        """Return float64 results for float64 input, float32 otherwise."""
        return result if _is_float64(X) else result.astype(np.float32)

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean codes μ(x).

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, latent_dim)
            float64 for float64 input, else float32; computed in float64.
        """
        check_is_fitted(self)
        rows = self._check_X(X, reset=False, dtype=(np.float64, np.float32))
        return self._like(self._apply(_double(self.encoder_), rows, self.latent_dim), X)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Decode codes to mean reconstructions.

        Parameters
        ----------
        X : array-like of shape (n, latent_dim)
            Codes.

        Returns
        -------
        ndarray of shape (n, d)
        """
        check_is_fitted(self)
        codes = self._check_codes(X)
        return self._like(self._apply(_double(self.decoder_), codes, self.n_features_in_), X)

    def _check_codes(self, Z: Any) -> np.ndarray:
        """Return codes as rows of floats."""
        try:
            codes = check_array(Z, dtype=(np.float64, np.float32), input_name="codes")
        except ValueError as error:
            raise InputError(str(error)) from error
        if codes.shape[1] != self.latent_dim:
            raise InputError(
                f"codes have {codes.shape[1]} columns, but latent_dim is {self.latent_dim}"
            )
        return codes

    def reconstruct(self, X: Any) -> np.ndarray:
        """Encode to the mean code and decode, without any noise.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, d)
        """
        check_is_fitted(self)
        rows = self._check_X(X, reset=False, dtype=(np.float64, np.float32))
        return self._like(self._apply(_double(self.net_.module_), rows, self.n_features_in_), X)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Decode codes drawn from the prior N(0, I).

        Parameters
        ----------
        n_samples : int ≥ 1, default=1
        random_state : None, int, RandomState or Generator, default=None
            None draws by the estimator's own seed: the same samples at every call.

        Returns
        -------
        ndarray of shape (n_samples, d), float32
            Means of the Gaussian decoder.
        """
        check_is_fitted(self)
        count = checks.check_integer("n_samples", n_samples, 1)
        seed = self.seed_ if random_state is None else checks.resolve_seed(random_state)
        codes = torch.randn(count, self.latent_dim, generator=checks.generator(seed, "sample"))
        decoded = self._apply(_double(self.decoder_), codes.numpy(), self.n_features_in_)
        return decoded.astype(np.float32)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the evidence lower bound of every sample.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), float64
            E[log N(x; g(z), I)] − KL(N(μ, σ²I) ‖ N(0, I)) in nats, larger is better; the
            constant −(d/2)·log 2π is included.

        Notes
        -----
        The expectation over z is a Monte Carlo mean over ``elbo_samples`` codes in
        antithetic pairs, unbiased for each sample.  All samples share the same noise,
        drawn by the estimator's seed: results do not depend on the order or number of
        rows, and errors between samples are correlated.  No input noise is added.
        """
        check_is_fitted(self)
        rows = self._check_X(X, reset=False, dtype=(np.float64, np.float32))
        noise = self._score_noise()
        std = checks.check_encoder_std(self.encoder_std)
        module: Any = _double(self.net_.module_)

        def elbo(x: torch.Tensor) -> torch.Tensor:
            mean, log_std = module.posterior(x)
            total = x.new_zeros(len(x))
            for row in noise.to(x):
                code = draw_code(mean, std, log_std, row.expand_as(mean))
                total += gaussian_log_likelihood(module.decoder(code), x)
            return total / len(noise) - kl_divergence(mean, std, log_std)

        return self._apply(elbo, rows, None)

    def _score_noise(self) -> torch.Tensor:
        """Return the (elbo_samples, m) noise of :meth:`score_samples`."""
        half = (self.elbo_samples + 1) // 2
        noise = torch.randn(half, self.latent_dim, generator=checks.generator(self.seed_, "score"))
        return torch.cat([noise, -noise])[: self.elbo_samples]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean evidence lower bound, in nats per sample; larger is better.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : ignored

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    # -------------------------------------------------------------- scikit-learn

    def __sklearn_tags__(self) -> Any:
        """Say that float32 and float64 are preserved."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _double(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float64 copy of a module; the trained one stays as it is."""
    return copy.deepcopy(module).double()


def _is_float64(X: Any) -> bool:
    """Tell whether an array or DataFrame holds float64 (lists do)."""
    dtype = getattr(X, "dtype", None)
    if dtype is not None:
        return dtype == np.float64
    kinds = getattr(X, "dtypes", None)
    if kinds is not None:
        return np.result_type(*kinds) == np.float64
    return True
