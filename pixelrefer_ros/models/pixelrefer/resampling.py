# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Resize pictures: exactly as trained weights know it, on the host; or on the device.

OpenCV's and Pillow's resizers are part of the numerics of published weights. Both are linear
in each axis, so that on a device they are two products with weight matrices. Results differ
from theirs where they round at another place: by one grey level, and with the bicubic filter,
which rounds twice, by two here and there. Of noise that it shrinks it can be more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_KEPT_BYTES = 3 * 2**20
"""Larger weights are not kept; with 64 of them that is 192 MiB at the very most."""

Pixels = Any
"""(H, W, 3) uint8 RGB: an array for ``HostResizer``, a tensor for ``DeviceResizer``."""

Size = tuple[int, int]
"""(width, height) in pixels, as OpenCV and Pillow have it."""


class Resizer(Protocol):
    """Resize pictures where they are."""

    def upload(self, image: NDArray[np.uint8]) -> Pixels:
        """Bring a frame to where it is resized."""
        ...

    def linear(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as OpenCV's INTER_LINEAR."""
        ...

    def area(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as OpenCV's INTER_AREA."""
        ...

    def bicubic(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as Pillow's BICUBIC."""
        ...

    def black(self, size: Size) -> Pixels:
        """Return a black picture."""
        ...


class HostResizer:
    """Resize arrays with OpenCV and Pillow."""

    def upload(self, image: NDArray[np.uint8]) -> Pixels:
        """Return the frame's own array."""
        return image

    def linear(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as OpenCV's INTER_LINEAR."""
        return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)

    def area(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as OpenCV's INTER_AREA."""
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    def bicubic(self, picture: Pixels, size: Size) -> Pixels:
        """Resize as Pillow's BICUBIC."""
        return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))

    def black(self, size: Size) -> Pixels:
        """Return a black picture."""
        return np.zeros((size[1], size[0], 3), np.uint8)


class DeviceResizer:
    """Resize tensors on their device."""

    def __init__(self, device: torch.device) -> None:
        """Resize on this device."""
        self.device = device

    def upload(self, image: NDArray[np.uint8]) -> Tensor:
        """Copy a frame to the device, through pinned memory where that makes it one transfer.

        The copy does not wait for the device; torch keeps the pinned buffer until it is done
        and uses it again.
        """
        staging = torch.empty(
            image.shape, dtype=torch.uint8, pin_memory=self.device.type == 'cuda'
        )
        staging.numpy()[...] = image
        return staging.to(self.device, non_blocking=True)

    def linear(self, picture: Tensor, size: Size) -> Tensor:
        """Resize as OpenCV's INTER_LINEAR."""
        return _resize(picture, size, linear_weights)

    def area(self, picture: Tensor, size: Size) -> Tensor:
        """Resize as OpenCV's INTER_AREA.

        That is the mean over the area a pixel covers when both sides shrink, else an
        interpolation whose flat parts are wider than those of INTER_LINEAR.
        """
        height, width = picture.shape[:2]
        shrinks = size[0] <= width and size[1] <= height
        return _resize(picture, size, area_weights if shrinks else stretch_weights)

    def bicubic(self, picture: Tensor, size: Size) -> Tensor:
        """Resize as Pillow's BICUBIC, which rounds between the two axes, too.

        Rows first: that is Pillow's order when a picture grows, which is what crops do. When it
        shrinks the order depends on the sizes, and noise can differ by more than two levels.
        """
        return _resize(picture, size, bicubic_weights, round_between=True)

    def black(self, size: Size) -> Tensor:
        """Return a black picture."""
        return torch.zeros(size[1], size[0], 3, dtype=torch.uint8, device=self.device)


EXACT = HostResizer()


def pick_resizer(resize: str, device: torch.device) -> Resizer:
    """Return a resizer by name.

    Args:
        resize: 'exact' for the host, 'device', or 'auto': the device when it is no CPU.
        device: Where the model is.

    Raises:
        ValueError: It is another word.
    """
    if resize not in ('auto', 'exact', 'device'):
        raise ValueError(f"resize is '{resize}', must be 'auto', 'exact' or 'device'")
    if resize == 'device' or (resize == 'auto' and device.type != 'cpu'):
        return DeviceResizer(device)
    return EXACT


def linear_weights(source: int, target: int, device: torch.device | str = 'cpu') -> Tensor:
    """Interpolate between pixel centres, clamped at the ends, (target, source) float32."""
    pixels, targets = _counted(source, device), _counted(target, device)
    centres = ((targets[:, None] + 0.5) * (source / target) - 0.5).clamp(0, source - 1)
    return (1 - (pixels - centres).abs()).clamp(min=0).float()


def area_weights(source: int, target: int, device: torch.device | str = 'cpu') -> Tensor:
    """Average what each target pixel covers, parts of pixels included, (target, source)."""
    pixels, targets = _counted(source, device), _counted(target, device)[:, None]
    last = torch.minimum((targets + 1) * source / target, pixels + 1)
    covered = last - torch.maximum(targets * source / target, pixels)
    return (covered.clamp(min=0) * (target / source)).float()


def stretch_weights(source: int, target: int, device: torch.device | str = 'cpu') -> Tensor:
    """Interpolate as INTER_AREA does when a side grows, (target, source) float32.

    A target pixel that lies inside one source pixel is that pixel; one that lies across a
    border is shared in proportion, in units of target pixels. Where a border falls on a border,
    rounding decides, as it does there.
    """
    pixels, targets = _counted(source, device), _counted(target, device)[:, None]
    per_source = target / source
    left = (targets * (1 / per_source)).floor()
    share = (targets + 1 - (left + 1) * per_source).float()
    share = torch.where(share <= 0, 0, share - share.floor())
    right = (left + 1).clamp(max=source - 1)
    return ((pixels == left) * (1 - share) + (pixels == right) * share).float()


def bicubic_weights(source: int, target: int, device: torch.device | str = 'cpu') -> Tensor:
    """Interpolate with Keys' cubic (a = -0.5), widened when shrinking, (target, source)."""
    pixels, targets = _counted(source, device), _counted(target, device)[:, None]
    scale = source / target
    wide = max(scale, 1.0)
    centres = (targets + 0.5) * scale
    first = (centres - 2 * wide + 0.5).floor().clamp(min=0)
    last = (centres + 2 * wide + 0.5).floor().clamp(max=source)
    away = ((pixels + 0.5 - centres) / wide).abs()
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = torch.where(away < 1, near, torch.where(away < 2, far, 0))
    weights = torch.where((pixels >= first) & (pixels < last), weights, 0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


Weights = Callable[[int, int, torch.device], Tensor]
"""Makes (target, source) float32 weights on a device, which is where they are used."""


def _counted(count: int, device: torch.device | str) -> Tensor:
    return torch.arange(count, dtype=torch.float64, device=device)


@lru_cache(maxsize=64)
def _kept(weights: Weights, source: int, target: int, device: torch.device) -> Tensor:
    """Return weights that are kept; whole frames have the same size again and again."""
    return weights(source, target, device)


def _weights(weights: Weights, source: int, target: int, device: torch.device) -> Tensor:
    """Return weights, large ones made anew."""
    if 4 * source * target > MAX_KEPT_BYTES:
        return weights(source, target, device)
    return _kept(weights, source, target, device)


def _resize(
    picture: Tensor, size: Size, weights: Weights, *, round_between: bool = False
) -> Tensor:
    """Resize (H, W, C) uint8 to (height, width, C) uint8 with weights of each axis."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    values = picture.permute(2, 0, 1).float()
    values = values @ _weights(weights, width, size[0], picture.device).T
    if round_between:
        values = _grey_levels(values)
    values = _weights(weights, height, size[1], picture.device) @ values
    return _grey_levels(values).to(torch.uint8).permute(1, 2, 0)


def _grey_levels(values: Tensor) -> Tensor:
    """Round to whole grey levels, halves up as both libraries mostly do."""
    return (values + 0.5).floor().clamp(0, 255)
