# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what SAM 2 remembers of one region, and no more than it looks at.

Each region has an inference session of its own. The dear part, the image encoding, is handed
from one to the next; what is left was done region by region anyway. So a region that comes,
goes or is corrected cannot change a bit of what is remembered of another, which it would in a
shared session: that encodes the memories of all its objects at once, and by the rule for
prompts when one of them was prompted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.sam2_model import Picture, Segmenter

NEWEST_PROMPTS = 3
"""Prompted frames kept as such beside the first one; older ones fade like any other frame."""

_OBJECT = 0
# only read when the same frame is asked for twice
_BULKY = ('pred_masks', 'high_res_masks')
_MEMORY = ('maskmem_features', 'maskmem_pos_enc')


@dataclass(frozen=True, slots=True)
class Decoded:
    """Hold what the model says of a region in one frame.

    Attributes:
        logits: (h, w) mask logits in the decoder's resolution; the region is where they are > 0.
        object_logit: > 0 when the model believes that the region is in the frame.
    """

    logits: torch.Tensor
    object_logit: float

    @property
    def score(self) -> float:
        """Return belief in the object times stability of its mask, in [0, 1].

        The stability is the IoU of the masks at logits 1 and -1 (Kirillov et al., Segment
        Anything, 2023, section 5).
        """
        certain = int((self.logits > 1.0).sum())
        possible = int((self.logits > -1.0).sum())
        stability = certain / possible if possible else 0.0
        return stability / (1.0 + math.exp(-max(min(self.object_logit, 60.0), -60.0)))

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the mask in the size of the frame, (height, width)."""
        logits = functional.interpolate(
            self.logits[None, None].float(), (height, width), mode='bilinear', align_corners=False
        )
        picture: NDArray[np.bool_] = (logits[0, 0] > 0.0).cpu().numpy()
        return picture


class RegionMemory:
    """Follow one region.

    Attributes:
        stamp_ns: Of the frame that was looked at last.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        """Remember nothing yet; ``prompt`` comes first."""
        self._segmenter = segmenter
        self._session = segmenter.new_session()
        self._session.obj_id_to_idx(_OBJECT)
        self._index = -1
        self.stamp_ns: int | None = None
        config = segmenter.model.config
        self._window = int(max(config.max_object_pointers_in_encoder, config.num_maskmem))
        self._spatial_window = int(config.num_maskmem)

    def follow(self, picture: Picture) -> Decoded:
        """Find the region in the next frame."""
        self._index += 1
        decoded = self._look(picture)
        self._forget()
        return decoded

    def prompt_points(
        self, picture: Picture, points: torch.Tensor, labels: torch.Tensor
    ) -> Decoded:
        """Find the region from points.

        Args:
            picture: The frame looked at last, or, for a memory that is new, the first.
            points: (N, 2) x, y in pixels of the model's square.
            labels: (N,) int32; 1 on the region, 0 off it, 2 and 3 the corners of its box.
        """
        self._enter(picture)
        inputs = {'point_coords': points[None, None], 'point_labels': labels[None, None]}
        self._session.add_point_inputs(_OBJECT, self._index, inputs)
        return self._prompted(picture)

    def prompt_mask(self, picture: Picture, mask: NDArray[np.bool_]) -> Decoded:
        """Take a mask for the region.

        Args:
            picture: As for ``prompt_points``.
            mask: (H, W) of any size, not empty.
        """
        self._enter(picture)
        size = (self._segmenter.image_size, self._segmenter.image_size)
        pixels = torch.from_numpy(mask.astype('float32'))[None, None]
        pixels = functional.interpolate(
            pixels, size, mode='bilinear', align_corners=False, antialias=True
        )
        # a region of less than half a pixel of the model's square is still one
        pixels = (pixels >= min(0.5, float(pixels.max()))).float()
        self._session.add_mask_inputs(_OBJECT, self._index, pixels)
        return self._prompted(picture)

    def _enter(self, picture: Picture) -> None:
        """Go to the frame of a prompt, and drop an earlier prompt of the same frame."""
        if self.stamp_ns != picture.stamp_ns:
            self._index += 1
            return
        prompted = self._outputs['cond_frame_outputs']
        if self._index in prompted and len(prompted) > 1:
            del prompted[self._index]

    def _prompted(self, picture: Picture) -> Decoded:
        session = self._session
        session.obj_with_new_inputs = [_OBJECT]
        try:
            decoded = self._look(picture)
        finally:
            session.obj_with_new_inputs = []
            session.remove_point_inputs(_OBJECT, self._index)
            session.remove_mask_inputs(_OBJECT, self._index)
        outputs = self._outputs
        # A frame that was followed before it was prompted is filed as followed; SAM 2 was trained
        # to treat every prompted one as conditioning.
        if self._index in outputs['non_cond_frame_outputs']:
            followed = outputs['non_cond_frame_outputs'].pop(self._index)
            outputs['cond_frame_outputs'][self._index] = followed
        self._forget()
        return decoded

    @property
    def _outputs(self) -> dict[str, dict[int, dict[str, Any]]]:
        outputs: dict[str, dict[int, dict[str, Any]]] = self._session.output_dict_per_obj[_OBJECT]
        return outputs

    def _look(self, picture: Picture) -> Decoded:
        """Run the model on the current frame; encode it only when nobody has."""
        session, index = self._session, self._index
        if picture.features is not None:
            session.cache.cache_vision_features(index, picture.features)
        try:
            told = self._segmenter.model(session, frame=picture.pixels, frame_idx=index)
            if picture.features is None:
                picture.features = session.cache.get_vision_features(index)
        finally:
            session.cache.clear_all()
            session.processed_frames.clear()
        self.stamp_ns = picture.stamp_ns
        logits = told.pred_masks.reshape(told.pred_masks.shape[-2:])
        # transformers 4 does not tell it: there only the mask says that nothing is found
        score = getattr(told, 'object_score_logits', None)
        object_logit = float(logits.max() if score is None else score.reshape(-1)[0])
        if not math.isfinite(object_logit) or not bool(torch.isfinite(logits).all()):
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f"model '{self._segmenter.name}' gives numbers that are not finite as "
                f'{self._segmenter.model.dtype}; use bfloat16 or float32',
            )
        return Decoded(logits, object_logit)

    def _forget(self) -> None:
        """Drop what no later frame looks at (the memory of SAM 2 is a window of frames)."""
        prompted = self._outputs['cond_frame_outputs']
        followed = self._outputs['non_cond_frame_outputs']
        for faded in list(prompted)[1:-NEWEST_PROMPTS]:
            followed[faded] = prompted.pop(faded)
        newest = (prompted if self._index in prompted else followed)[self._index]
        for key in _BULKY:
            newest.pop(key, None)
        for index in [one for one in followed if one <= self._index - self._window]:
            del followed[index]
        for index, entry in followed.items():
            if index <= self._index - self._spatial_window:
                for key in _MEMORY:
                    entry.pop(key, None)
        tracked = self._session.frames_tracked_per_obj[_OBJECT]
        for index in [one for one in tracked if one <= self._index - self._window]:
            del tracked[index]
