# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Load SAM 2 and its kin, and show them frames.

Only the models of transformers are used, not their processors: those need torchvision, which
has no build beside a CPU build of torch.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.devices import pick_device, pick_dtype
from pixelrefer_ros.models.guards import failures, quietly
from pixelrefer_ros.tracking.weights import SUGGESTION, find_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ADVICE = 'follow fewer regions or use a smaller model'

CLASS_NAMES = ('Sam2VideoModel', 'EdgeTamVideoModel', 'Sam3TrackerVideoModel')
"""Classes of transformers that speak the same session interface."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NORMALISATION = {'Sam3TrackerVideoModel': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
_MAX_NAMES = 10
# One matrix under two names. Files written by transformers 4 hold it once; 5.23 would leave the
# prompts random then.
_GRID, _PROMPT_GRID = (
    f'{part}.positional_embedding'
    for part in ('shared_image_embedding', 'prompt_encoder.shared_embedding')
)


@dataclass(slots=True)
class Picture:
    """Hold one frame as the model sees it.

    Attributes:
        stamp_ns: Of the frame.
        pixels: (3, S, S), normalised, on the model's device.
        features: What the image encoder says of it; set by the first region that looks.
    """

    stamp_ns: int
    pixels: torch.Tensor
    features: dict[str, Any] | None = None


class Segmenter:
    """Hold a promptable video model; trackers of several cameras share one.

    Attributes:
        name: Of the model.
        model: A ``Sam2VideoModel`` or one of its kin, in eval mode on its device.
        image_size: Side in pixels of the square the model sees.
    """

    def __init__(self, model: Any, name: str) -> None:
        """Take a model and learn from its class what it needs.

        Args:
            model: On the device and in the dtype it shall run in.
            name: As it appears in diagnostics.
        """
        self.name = name
        self.model = model.eval()
        size = model.config.image_size
        self.image_size = int(size if isinstance(size, int) else size[0])
        class_name = type(model).__name__
        module = sys.modules[type(model).__module__]
        self._session_class = getattr(module, class_name.replace('Model', 'InferenceSession'))
        mean, std = _NORMALISATION.get(class_name, _IMAGENET)
        self._mean = 255.0 * torch.tensor(mean, device=model.device).view(3, 1, 1)
        self._std = 255.0 * torch.tensor(std, device=model.device).view(3, 1, 1)

    def new_session(self) -> Any:
        """Return an inference session for streaming, its state beside the model."""
        device = self.model.device
        return self._session_class(
            inference_device=device,
            inference_state_device=device,
            video_storage_device=device,
            dtype=self.model.dtype,
        )

    def look(self, stamp_ns: int, image: NDArray[np.uint8]) -> Picture:
        """Resize an image (H, W, 3) to the model's square and normalise it."""
        size = (self.image_size, self.image_size)
        # a copy: the image may be read-only, which tensors cannot be
        pixels = torch.from_numpy(np.array(image)).to(self.model.device)
        pixels = pixels.permute(2, 0, 1)[None].float()
        pixels = functional.interpolate(
            pixels, size, mode='bilinear', align_corners=False, antialias=True
        )[0]
        pixels = (pixels - self._mean) / self._std
        return Picture(stamp_ns, pixels.to(self.model.dtype))


def load_segmenter(
    name: str,
    *,
    class_name: str = CLASS_NAMES[0],
    device: str = 'auto',
    dtype: str = 'auto',
) -> Segmenter:
    """Load weights that are on this machine.

    Args:
        name: A directory, or a hub name fetched before, such as facebook/sam2.1-hiera-tiny. A
            config.json of the image model ('sam2') will do when the weights are whole.
        class_name: One of ``CLASS_NAMES``.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        dtype: 'auto', 'float32', 'bfloat16' or 'float16'; 'auto' is float32 on a CPU and
            bfloat16 elsewhere.

    Raises:
        PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when it does not fit.
    """
    model_class = _model_class(class_name)
    place = pick_device(device)
    own = torch.float32 if place.type == 'cpu' else torch.bfloat16
    precision = pick_dtype(dtype) or own
    directory = find_weights(name)
    _check_kind(directory, model_class)
    with failures(f"model '{name}'", ADVICE), quietly():
        try:
            model, told = model_class.from_pretrained(
                directory,
                dtype=precision,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except MemoryError:
            raise
        except Exception as error:  # reading arbitrary files raises nearly anything
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f"model '{name}' cannot be loaded: {error}; `pixelrefer fetch MODEL` gets it anew",
            ) from error
        missing = set(told['missing_keys'])
        if _PROMPT_GRID in missing and _GRID not in missing:
            model.get_buffer(_PROMPT_GRID).copy_(model.get_buffer(_GRID))
            missing.remove(_PROMPT_GRID)
        _refuse_partial(name, class_name, told | {'missing_keys': missing})
        model.to(place)
    logger.info('loaded %s on %s as %s', name, place, precision)
    return Segmenter(model, name)


def _model_class(class_name: str) -> Any:
    if class_name not in CLASS_NAMES:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"tracker class is '{class_name}', must be one of {', '.join(CLASS_NAMES)}",
        )
    return getattr(transformers, class_name)


def _check_kind(directory: Path, model_class: Any) -> None:
    """Refuse a directory of quite another model before its weights are read."""
    try:
        fields = json.loads((directory / 'config.json').read_text(encoding='utf-8'))
        kind = str(fields['model_type'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f'{directory} is no model directory: its config.json is missing or says no '
            f'model_type; `pixelrefer fetch {SUGGESTION}` gets one',
        ) from error
    wanted = model_class.config_class.model_type
    # sam2 and sam2_video, sam3_tracker_video and sam3_video share weights
    if kind.partition('_')[0] != wanted.partition('_')[0]:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"{directory}: model_type is '{kind}', {model_class.__name__} needs '{wanted}'",
        )


def _refuse_partial(name: str, class_name: str, told: dict[str, Any]) -> None:
    parts = []
    for label, key in (
        ('missing', 'missing_keys'),
        ('unexpected', 'unexpected_keys'),
        ('of another shape', 'mismatched_keys'),
    ):
        # a mismatched key comes with its two shapes
        names = sorted(str(one[0] if isinstance(one, tuple) else one) for one in told[key])
        if names:
            more = f' and {len(names) - _MAX_NAMES} more' if len(names) > _MAX_NAMES else ''
            parts.append(f'{label} ({len(names)}): {", ".join(names[:_MAX_NAMES])}{more}')
    if parts:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"model '{name}': the weights are not those of a whole {class_name}; "
            f'{"; ".join(parts)}',
        )
