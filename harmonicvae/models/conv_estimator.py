"""The scikit-learn estimator with convolutions instead of multilayer perceptrons."""

from __future__ import annotations

import math
from typing import Any

from harmonicvae.exceptions import InputError
from harmonicvae.models import parameters as checks
from harmonicvae.models.conv_modules import ConvVAEModule, ImageShape
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.modules import GaussianVAE


class ConvHarmonicVAE(HarmonicVAE):
    """Convolutional variational autoencoder with a chosen encoder noise and input noise.

    As :class:`harmonicvae.HarmonicVAE`, with an encoder of strided convolutions and a
    linear layer, and a decoder of a linear layer and transposed convolutions. Samples are
    flattened images, one a row, with channels last, as the package's data sets have them.

    Parameters
    ----------
    image_shape : tuple (height, width) or (height, width, channels) or None, default=None
        Shape of the image in a row of X. None takes d = k² features for a square
        single-channel image, d = 3k² for a square one of three channels, and else the row
        for an image of height 1 and one channel.
    channels : sequence of int ≥ 1, default=(8, 16, 32)
        Output channels of the encoder's convolutions, at least one of them; the decoder
        has them in reverse.
    kernel_size : int ≥ 1, odd, default=3
        Height and width of the kernels; images are padded by kernel_size // 2 zeros.
    stride : int ≥ 1, default=2
        Each convolution maps n pixels along an axis to ⌈n/stride⌉.
    hidden_dims : sequence of int ≥ 1, default=()
        Widths of further linear layers between the convolutions and the code; the decoder
        has them in reverse.
    activation : str, default="elu"
        As in :class:`harmonicvae.HarmonicVAE`. Sigmoid nets of this depth train so slowly
        that they look collapsed for many epochs.
    latent_dim, encoder_std, input_noise_std, reconstruction_target, max_epochs, batch_size, \
lr, kl_weight, elbo_samples, validation_fraction, callbacks, checkpoint_path, \
checkpoint_every, reproduction_errors, random_state, device, verbose
        As in :class:`harmonicvae.HarmonicVAE`.

    Attributes
    ----------
    image_shape_ : tuple (height, width, channels)
        The shape in use.
    encoder_, decoder_, history_, n_iter_, collapse_, seed_, net_, n_features_in_, \
feature_names_in_
        As in :class:`harmonicvae.HarmonicVAE`. Encoder and decoder are Sequentials of
        layers that :meth:`harmonicvae.LayeredNetwork.from_module` represents exactly.

    Notes
    -----
    All channels of the output share one bias. Everything else, from seeds to checkpoints,
    is that of :class:`harmonicvae.HarmonicVAE`.

    References
    ----------
    Camuto & Willetts, arXiv 2105.14866; Dumoulin & Visin, arXiv 1603.07285 (arithmetic of
    transposed convolutions).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data / 8 - 1
    >>> vae = ConvHarmonicVAE(latent_dim=8, max_epochs=3, encoder_std=0.3, batch_size=32,
    ...                       random_state=0).fit(X)
    >>> vae.image_shape_, vae.reconstruct(X[:3]).shape
    ((8, 8, 1), (3, 64))
    """

    def __init__(
        self,
        latent_dim: int = 2,
        image_shape: Any = None,
        channels: Any = (8, 16, 32),
        kernel_size: int = 3,
        stride: int = 2,
        hidden_dims: Any = (),
        activation: str = "elu",
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
        super().__init__(
            latent_dim=latent_dim,
            hidden_dims=hidden_dims,
            activation=activation,
            encoder_std=encoder_std,
            input_noise_std=input_noise_std,
            reconstruction_target=reconstruction_target,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            kl_weight=kl_weight,
            elbo_samples=elbo_samples,
            validation_fraction=validation_fraction,
            callbacks=callbacks,
            checkpoint_path=checkpoint_path,
            checkpoint_every=checkpoint_every,
            reproduction_errors=reproduction_errors,
            random_state=random_state,
            device=device,
            verbose=verbose,
        )
        self.image_shape = image_shape
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride

    def _checked_parameters(self) -> dict[str, Any]:
        params = super()._checked_parameters()
        if not checks.check_widths("channels", params["channels"]):
            raise InputError("channels must have at least one number, got none")
        if checks.check_integer("kernel_size", params["kernel_size"], 1) % 2 == 0:
            raise InputError(f"kernel_size must be odd, got {params['kernel_size']!r}")
        checks.check_integer("stride", params["stride"], 1)
        if params["image_shape"] is not None:
            _check_image_shape(params["image_shape"])
        return params

    def _network(self, params: dict[str, Any]) -> tuple[type[GaussianVAE], dict[str, Any]]:
        self.image_shape_ = resolve_image_shape(params["image_shape"], self.n_features_in_)
        options = {
            "image_shape": self.image_shape_,
            "latent_dim": params["latent_dim"],
            "channels": checks.check_widths("channels", params["channels"]),
            "kernel_size": int(params["kernel_size"]),
            "stride": int(params["stride"]),
            "hidden_dims": checks.check_hidden_dims(params["hidden_dims"]),
            "activation": params["activation"],
        }
        return ConvVAEModule, options


def _check_image_shape(image_shape: Any) -> ImageShape:
    """Return (height, width, channels) of a shape of two or three whole numbers ≥ 1."""
    numbers = checks.check_widths("image_shape", image_shape)
    if len(numbers) not in (2, 3):
        raise InputError(
            f"image_shape must be (height, width) or (height, width, channels), got {image_shape!r}"
        )
    height, width, depth = [*numbers, 1][:3]
    return height, width, depth


def resolve_image_shape(image_shape: Any, n_features: int) -> ImageShape:
    """Return the shape of the image in a flattened row.

    Parameters
    ----------
    image_shape : sequence of 2 or 3 int or None
        (height, width) or (height, width, channels); None infers it.
    n_features : int
        Numbers in a row.

    Returns
    -------
    tuple (height, width, channels)
        For None (k, k, 1) where n_features = k², (k, k, 3) where it is 3k², and else
        (1, n_features, 1).

    Raises
    ------
    InputError
        If the shape does not hold ``n_features`` numbers.

    Examples
    --------
    >>> resolve_image_shape(None, 784), resolve_image_shape(None, 3072)
    ((28, 28, 1), (32, 32, 3))
    >>> resolve_image_shape(None, 7), resolve_image_shape((2, 5), 10)
    ((1, 7, 1), (2, 5, 1))
    """
    if image_shape is None:
        for depth in (1, 3):
            side = math.isqrt(n_features // depth)
            if depth * side * side == n_features:
                return side, side, depth
        return 1, n_features, 1
    shape = _check_image_shape(image_shape)
    if math.prod(shape) != n_features:
        raise InputError(
            f"image_shape must hold the {n_features} features of X, got {image_shape!r}, "
            f"which holds {math.prod(shape)}"
        )
    return shape
