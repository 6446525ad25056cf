"""Convolutional networks for flattened images whose channels come last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from harmonicvae.models.modules import ACTIVATIONS, GaussianVAE, check_activation

#: Height, width and channels.
ImageShape = tuple[int, int, int]


def image_sizes(image_shape: ImageShape, layers: int, stride: int) -> list[tuple[int, int]]:
    """Return heights and widths before and after each convolution.

    Parameters
    ----------
    image_shape : tuple (height, width, channels)
    layers : int
        Convolutions, ≥ 0.
    stride : int
        ≥ 1.

    Returns
    -------
    list of layers + 1 tuples (height, width)
        Each convolution maps n pixels to ⌈n/stride⌉, at least one.

    Examples
    --------
    >>> image_sizes((32, 31, 3), 3, 2)
    [(32, 31), (16, 16), (8, 8), (4, 4)]
    """
    sizes = [image_shape[:2]]
    for _ in range(layers):
        height, width = sizes[-1]
        sizes.append((-(-height // stride), -(-width // stride)))
    return sizes


def conv_encoder(
    image_shape: ImageShape,
    channels: Sequence[int],
    kernel_size: int,
    stride: int,
    dims: Sequence[int],
    activation: str,
) -> nn.Sequential:
    """Build Unflatten, convolutions, Flatten and linear layers.

    Parameters
    ----------
    image_shape : tuple (height, width, channels)
        Of the images, whose flattened rows have channels last.
    channels : sequence of int
        Output channels of each convolution, at least one.
    kernel_size : int
        Odd; the images are padded by kernel_size // 2 zeros.
    stride : int
        ≥ 1.
    dims : sequence of int
        Widths of the hidden linear layers and of the output.
    activation : str
        Key in :data:`harmonicvae.models.modules.ACTIVATIONS`; after each layer but the last.

    Returns
    -------
    torch.nn.Sequential

    Notes
    -----
    A row with channels last is a single-channel image of height × (width · channels). A
    kernel that is ``channels`` times as wide, with stride and padding as many times as
    large, is the usual convolution over all channels, in the order in which the row lies
    in memory: no permutation is needed.

    Examples
    --------
    >>> [type(layer).__name__ for layer in conv_encoder((4, 4, 3), [2], 3, 2, [5], "elu")]
    ['Unflatten', 'Conv2d', 'ELU', 'Flatten', 'Linear']
    """
    check_activation(activation)
    height, width, depth = image_shape
    pad = kernel_size // 2
    layers: list[nn.Module] = [
        nn.Unflatten(1, (1, height, width * depth)),
        nn.Conv2d(
            1,
            channels[0],
            (kernel_size, kernel_size * depth),
            (stride, stride * depth),
            (pad, pad * depth),
        ),
        ACTIVATIONS[activation](),
    ]
    for before, after in pairwise(channels):
        layers.append(nn.Conv2d(before, after, kernel_size, stride, pad))
        layers.append(ACTIVATIONS[activation]())
    rows, columns = image_sizes(image_shape, len(channels), stride)[-1]
    layers.append(nn.Flatten())
    for before, after in pairwise([channels[-1] * rows * columns, *dims]):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def conv_decoder(
    image_shape: ImageShape,
    channels: Sequence[int],
    kernel_size: int,
    stride: int,
    dims: Sequence[int],
    activation: str,
) -> nn.Sequential:
    """Build linear layers, Unflatten, transposed convolutions and Flatten.

    Parameters
    ----------
    image_shape, channels, kernel_size, stride, activation
        As for :func:`conv_encoder`, of which this is the mirror image.
    dims : sequence of int
        Width of the input and of the hidden linear layers.

    Returns
    -------
    torch.nn.Sequential
        Its outputs are flattened images with channels last, all of which share one bias.

    Examples
    --------
    >>> [type(layer).__name__ for layer in conv_decoder((4, 4, 3), [2], 3, 2, [5], "elu")]
    ['Linear', 'ELU', 'Unflatten', 'ConvTranspose2d', 'Flatten']
    """
    check_activation(activation)
    sizes = image_sizes(image_shape, len(channels), stride)[::-1]
    rows, columns = sizes[0]
    layers: list[nn.Module] = []
    for before, after in pairwise([*dims, channels[-1] * rows * columns]):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    layers.append(nn.Unflatten(1, (channels[-1], rows, columns)))
    pad, depth = kernel_size // 2, image_shape[2]
    widths = [*channels[::-1], 1]
    for i, (before, after) in enumerate(pairwise(widths)):
        scale = depth if i == len(channels) - 1 else 1
        rest = [large - 1 - (small - 1) * stride for small, large in zip(sizes[i], sizes[i + 1])]
        layers.append(
            nn.ConvTranspose2d(
                before,
                after,
                (kernel_size, kernel_size * scale),
                (stride, stride * scale),
                (pad, pad * scale),
                (rest[0], rest[1] * scale),
            )
        )
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers[:-1], nn.Flatten())


class ConvVAEModule(GaussianVAE):
    """Variational autoencoder of convolutions, and of transposed ones in reverse.

    Parameters
    ----------
    image_shape : tuple (height, width, channels)
        Of the images, whose flattened rows have channels last.
    latent_dim : int
        Latent units m.
    channels : sequence of int
        Output channels of the encoder's convolutions; the decoder has them in reverse.
    kernel_size : int
        Odd.
    stride : int
        ≥ 1.
    hidden_dims : sequence of int
        Widths of linear layers between the convolutions and the code.
    activation : str
        Key in :data:`harmonicvae.models.modules.ACTIVATIONS`.
    learned_std : bool
        Whether the spread σ(x) of the code is a second output of the encoder's trunk.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        channels: Sequence[int],
        kernel_size: int,
        stride: int,
        hidden_dims: Sequence[int],
        activation: str,
        learned_std: bool = False,
    ) -> None:
        geometry = (image_shape, channels, kernel_size, stride)
        super().__init__(
            conv_encoder(*geometry, [*hidden_dims, latent_dim], activation),
            conv_decoder(*geometry, [latent_dim, *hidden_dims[::-1]], activation),
            learned_std,
        )
