"""CelebA: aligned and cropped photographs of faces, as 64×64 colour images."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path

import joblib
import numpy as np
from PIL import Image, UnidentifiedImageError
from sklearn.utils import Bunch
from tqdm import tqdm

from harmonicvae.datasets.bunches import TRAIN, VALIDATION, check_split, image_bunch
from harmonicvae.datasets.cache import read_cache, write_cache
from harmonicvae.datasets.celeba_partition import IMAGES, PARTITION, select_images
from harmonicvae.exceptions import (
    DatasetCorruptError,
    DatasetNotFoundError,
    HarmonicVAEError,
    InputError,
)
from harmonicvae.names import CELEBA

_SPLITS = {TRAIN: 0, VALIDATION: 1, "test": 2}
_TRAIN_IMAGES = 51_200
_FILE_SIZE = (178, 218)  # width, height of the official files
_CROP = 148
_SIDE = 64
_IMAGE_SHAPE = (_SIDE, _SIDE, 3)
_VALUES = _SIDE * _SIDE * 3
#: Raised whenever the bytes of an image would come out differently.
_FORMAT = "harmonicvae celeba 1: centre crop 148, bilinear antialiased 64"
_IMAGES_PER_BLOCK = 64
_CACHE_FOLDER = "harmonicvae-cache"


def load_celeba(
    split: str = TRAIN,
    *,
    data_dir: str | os.PathLike[str],
    n_images: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    n_jobs: int | None = None,
    verbose: bool = True,
    as_array: bool = False,
) -> Bunch:
    """Read CelebA images of one split, cropped to 148×148, resized to 64×64, in [−1, 1].

    Parameters
    ----------
    split : {"train", "validation", "test"}, default="train"
        Official split (0, 1, 2 in ``list_eval_partition.txt``).
    data_dir : path
        Folder with ``img_align_celeba/`` and ``list_eval_partition.txt``.
    n_images : int or None, default=None
        How many images of the split, from its first on, ≥ 1.  None: 51,200 of
        "train" (or all, if the list has fewer), all of the other splits.
    cache_dir : path or None, default=None
        Where decoded images are kept, 12 KiB each.  None: ``harmonicvae-cache``
        under ``data_dir`` if that folder is writable, else ``harmonicvae`` in the
        user's cache folder ($XDG_CACHE_HOME or ~/.cache).  A folder without any
        write permission is left alone, even by the superuser.
    allow_missing : bool, default=False
        Whether rows of the list without image file are passed over (and counted in
        ``missing``).  The result then has fewer images if there are fewer.
    n_jobs : int or None, default=None
        Threads that decode; None: one per available processor.
    verbose : bool, default=True
        Whether decoding shows a progress bar on standard error.
    as_array : bool, default=False
        Whether ``data`` is an ndarray of float32 (48 KiB an image, 2.5 GB for 51,200)
        instead of a :class:`~harmonicvae.datasets.scaled.ScaledImages` over the cache.

    Returns
    -------
    Bunch
        data : ScaledImages or ndarray of float32, shape (n, 12288), values in [−1, 1]
            Flattened height × width × channels, so that
            ``data[0].reshape(image_shape)`` is an image with its channels last.
        image_shape : tuple of int
            (64, 64, 3).
        scaling : dict
            minimum 0 and maximum 255: data = 2·(raw − minimum)/(maximum − minimum) − 1.
        missing : int
            Rows of the list that were passed over because their image is absent.
        name, split, layout, digest, DESCR : str
            The digest is the SHA-256 of the bytes.

    Raises
    ------
    InputError
        If an argument is outside what is allowed, or the cache cannot be written.
    DatasetNotFoundError
        If a folder, the list, or (unless ``allow_missing``) an image is missing.
    DatasetCorruptError
        If a row of the list is malformed, or an image is truncated, not a JPEG or not
        178×218 pixels; the message names the line or the file.

    Notes
    -----
    The antialiased filter is Pillow's bilinear (a triangle as wide as the reduction
    asks for), applied to the cropped image.  The result is kept in a file keyed by
    names, sizes and modification times of the images and by the processing, written
    in one step; later calls map it, O(n) file status queries, and read no image.  A
    truncated or extended cache file is written anew; old files are not removed.

    References
    ----------
    Liu, Luo, Wang & Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    For non-commercial research only.

    Examples
    --------
    >>> load_celeba("train", data_dir="/nowhere")
    Traceback (most recent call last):
    harmonicvae.exceptions.DatasetNotFoundError: CelebA was not found: there is no ...
    """
    check_split(split, _SPLITS)
    _check_counts(n_images, n_jobs)
    root = _path("data_dir", data_dir)
    limit = _TRAIN_IMAGES if n_images is None and split == TRAIN else None
    names, missing = select_images(
        root, _SPLITS[split], wanted=n_images, at_most=limit, allow_missing=allow_missing
    )
    folders = [_path("cache_dir", cache_dir)] if cache_dir is not None else _cache_folders(root)
    raw, digest = _decoded(root / IMAGES, names, split, folders, n_jobs, verbose)
    return image_bunch(
        raw,
        as_array=as_array,
        image_shape=_IMAGE_SHAPE,
        name=CELEBA,
        split=split,
        missing=missing,
        digest=digest,
        DESCR=f"CelebA, {split} split, {len(names)} images: centre 148×148, resized to 64×64 RGB "
        f"({missing} rows of the list without image; Liu et al. 2015).",
    )


def _check_counts(n_images: int | None, n_jobs: int | None) -> None:
    for name, value in (("n_images", n_images), ("n_jobs", n_jobs)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise InputError(f"{name} must be an integer or None, got {value!r}")
    if n_images is not None and n_images < 1:
        raise InputError(f"n_images must be >= 1, got {n_images}")
    if n_jobs == 0:
        raise InputError("n_jobs must not be 0; use -1 for all processors")


def _path(name: str, value: str | os.PathLike[str]) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise InputError(f"{name} must be a folder, got {value!r}")
    return Path(os.path.abspath(Path(value).expanduser()))


def _decoded(
    folder: Path,
    names: list[str],
    split: str,
    cache_folders: list[Path],
    n_jobs: int | None,
    verbose: bool,
) -> tuple[np.memmap, str]:
    """Return bytes and digest of the images from a cache, which is made if need be."""
    key = _cache_key(folder, names, split)
    shape = (len(names), _VALUES)
    file_name = f"celeba-{split}-{key[:16]}.npy"
    for cache_folder in cache_folders:
        found = read_cache(cache_folder / file_name, key=key, shape=shape)
        if found is not None:
            return found
    path = _first_writable(cache_folders, shape) / file_name
    try:
        write_cache(path, key=key, shape=shape, blocks=_blocks(folder, names, n_jobs, verbose))
    except HarmonicVAEError:
        raise
    except OSError as error:
        raise _cache_error(path.parent, shape, error) from error
    found = read_cache(path, key=key, shape=shape)
    if found is None:
        raise DatasetCorruptError(f"{path} was changed while it was written; load again")
    return found


def _cache_key(folder: Path, names: list[str], split: str) -> str:
    """Return the SHA-256 of everything that the decoded bytes depend on."""
    key = hashlib.sha256(json.dumps([_FORMAT, split, len(names)]).encode())
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name))
        except OSError as error:
            raise DatasetNotFoundError(f"{folder / name} cannot be read: {error}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DatasetCorruptError(f"{folder / name} must be a JPEG file, got something else")
        key.update(f"{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def _cache_folders(root: Path) -> list[Path]:
    """Return the default folders of the cache, in the order in which they are tried."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [root / _CACHE_FOLDER, Path(home).expanduser() / "harmonicvae"]


def _first_writable(folders: list[Path], shape: tuple[int, int]) -> Path:
    """Create and return the first folder that can be written."""
    for folder in folders[:-1]:
        place = folder if folder.is_dir() else folder.parent
        if place.stat().st_mode & 0o222 and os.access(place, os.W_OK | os.X_OK):
            folders = [folder]
            break
    try:
        folders[-1].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(folders[-1], shape, error) from error
    return folders[-1]


def _cache_error(folder: Path, shape: tuple[int, int], error: OSError) -> InputError:
    return InputError(
        f"the cache of {shape[0]} images ({shape[0] * shape[1] / 1e6:.0f} MB) could not be "
        f"written to {folder} ({error}); free space there or give another cache_dir"
    )


def _blocks(
    folder: Path, names: list[str], n_jobs: int | None, verbose: bool
) -> Iterator[np.ndarray]:
    """Yield blocks of decoded images in order, decoded in threads (Pillow frees the GIL)."""
    parts = [
        names[start : start + _IMAGES_PER_BLOCK]
        for start in range(0, len(names), _IMAGES_PER_BLOCK)
    ]
    threads = joblib.cpu_count() if n_jobs is None else n_jobs
    parallel = joblib.Parallel(n_jobs=threads, backend="threading", return_as="generator")
    blocks = parallel(joblib.delayed(_decode_block)(folder, part) for part in parts)
    with tqdm(total=len(names), desc="CelebA", unit="image", disable=not verbose) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))


def _decode_block(folder: Path, names: list[str]) -> np.ndarray:
    return np.stack([_decode_image(folder / name) for name in names])


def _decode_image(path: Path) -> np.ndarray:
    """Return one image, cropped and resized, as uint8 of shape (12288,)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path} disappeared; restore it and load again") from error
    # An end marker must be there: Pillow can be told, globally, to accept truncated files.
    if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise DatasetCorruptError(f"{path} is truncated or not a JPEG; restore it from the archive")
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            _check_size(path, image)
            left, top = ((size - _CROP) // 2 for size in _FILE_SIZE)
            box = (left, top, left + _CROP, top + _CROP)
            face = image.convert("RGB").crop(box)
    except UnidentifiedImageError as error:
        raise DatasetCorruptError(f"{path} is not a JPEG; restore it from the archive") from error
    except HarmonicVAEError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetCorruptError(
            f"{path} is truncated or damaged ({error}); restore it from the archive"
        ) from error
    return np.asarray(face.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)).reshape(-1)


def _check_size(path: Path, image: Image.Image) -> None:
    if image.size != _FILE_SIZE:
        width, height = image.size
        raise DatasetCorruptError(
            f"{path} must be {_FILE_SIZE[0]}×{_FILE_SIZE[1]} pixels, got {width}×{height}; "
            f"{IMAGES}/ and {PARTITION} of the aligned and cropped CelebA are needed"
        )
