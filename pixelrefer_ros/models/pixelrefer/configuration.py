# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold the configuration of PixelRefer-Lite, as published config.json files have it."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from huggingface_hub.dataclasses import strict
from transformers import Qwen2Config, VideoLlama3VisionConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

PATCH_SIZE = 14
"""Side of a vision patch in pixels; the published tower knows no other."""

SO400M: dict[str, Any] = {
    'hidden_size': 1152,
    'intermediate_size': 4304,
    'num_hidden_layers': 27,
    'num_attention_heads': 16,
    'num_channels': 3,
    'patch_size': PATCH_SIZE,
}
"""Sizes of the published vision tower, which its config.json leaves out."""


@strict
class PixelReferConfig(Qwen2Config):
    """Describe a PixelRefer-Lite model: Qwen2 fields, published keys, sizes, wording.

    Published files hold the Qwen2 fields and the ``mm_*`` keys, all flat. Keys this class does
    not know are kept and written back. The sizes below are constants in the paper; as fields
    they let a small model use small pictures.

    Attributes:
        vision_encoder_config: Vision tower; the published so400m when absent.
        use_mm_proj: Whether the weights hold ``mm_projector``, which Lite never calls.
        use_mask_embedding: Whether the weights hold ``mask_embedding``, never called either.
        mm_max_length: Pixel budget of one picture, in patches.
        mask_num: Tokens of one mask.
        global_size: Side in pixels of the square the whole frame is scaled to.
        local_size: Side in pixels of the square the context crop is scaled to.
        object_margin: Pixels around the mask's box in the object crop.
        context_margin: Pixels around the mask's box in the context crop.
        large_object_patches: Patches that a large mask is scaled down to.
        kmeans_iterations: At most this many rounds of clustering.
        fusion_heads: Heads of the two cross attentions.
        min_pixels: Smaller object crops are scaled up to this many pixels.
        working_long_side: Frames and masks are first scaled down so that their long side is at
            most this many pixels; 0 leaves them as they are.
        max_frames_per_region: Frames of one region the model wants to see at most.
        compat_reuse_context: As the reference does, let all masks of a frame share the context
            crop of the first.
        compat_shared_budget: As the reference does, divide the pixel budget by the number of
            masks.
        describe_prompt_image: What to ask for a description of a region in a picture. With
            ``<region>`` in it no introduction goes before.
        describe_prompt_video: The same for a video.
        one_object_prefix_image: Sentence that introduces the only object; ``{objects}`` becomes
            ``<object0><region>``.
        one_object_prefix_video: The same for a video.
        many_objects_prefix_image: Sentence that introduces several; ``{count}`` becomes a word.
        many_objects_prefix_video: The same for a video.
    """

    model_type = 'pixelreferlite_qwen2'
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        'vision_encoder_config': SubConfigSpec(
            config_class=VideoLlama3VisionConfig, init_kwargs=SO400M
        ),
    }

    vision_encoder_config: dict[str, Any] | PreTrainedConfig | None = None
    mm_vision_encoder: str = 'DAMO-NLP-SG/VL3-SigLIP-NaViT'
    mm_hidden_size: int = 1152
    mm_projector_type: str = 'mlp2x_gelu'
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = 'patch'
    mm_max_length: int = 8192
    spatial_merge_size: int = 2
    use_mm_proj: bool = True
    use_token_compression: bool = True
    image_aspect_ratio: str = 'qwen2vl'
    image_token_index: int | None = None
    region_token_index: int | None = None
    max_frames: int = 180
    mask_num: int = 32

    use_mask_embedding: bool = True
    global_size: int = 336
    local_size: int = 224
    object_margin: int = 28
    context_margin: int = 28
    large_object_patches: int = 50
    kmeans_iterations: int = 3
    fusion_heads: int = 8
    min_pixels: int = 3136
    working_long_side: int = 0
    max_frames_per_region: int = 8
    compat_reuse_context: bool = False
    compat_shared_budget: bool = False

    describe_prompt_image: str = 'Please describe the region <region> in the image in detail.'
    describe_prompt_video: str = 'Please describe <object0> in the video in detail.'
    one_object_prefix_image: str = 'There is an object in the image: {objects}.'
    one_object_prefix_video: str = 'There is an object in the video: {objects}.'
    many_objects_prefix_image: str = 'There are {count} objects in the image: {objects}.'
    many_objects_prefix_video: str = 'There are {count} objects in the video: {objects}.'

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the tower in and check the sizes.

        Raises:
            ValueError: A size does not fit, with the name of the field.
        """
        super().__post_init__(**kwargs)
        tower = self.tower_config
        if tower.patch_size != PATCH_SIZE:
            raise ValueError(
                f'vision_encoder_config.patch_size is {tower.patch_size}, must be {PATCH_SIZE}'
            )
        self.mm_hidden_size = tower.hidden_size
        if tower.hidden_size % self.fusion_heads:
            raise ValueError(
                f'fusion_heads {self.fusion_heads} does not divide the vision width '
                f'{tower.hidden_size}'
            )
        for name in ('global_size', 'local_size'):
            size = getattr(self, name)
            if size < PATCH_SIZE or size % PATCH_SIZE:
                raise ValueError(f'{name} is {size}, must be a multiple of {PATCH_SIZE}')
        for name in (
            'mask_num',
            'kmeans_iterations',
            'large_object_patches',
            'mm_max_length',
            'max_frames_per_region',
            'min_pixels',
        ):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, must be at least 1')
        for name in ('object_margin', 'context_margin', 'working_long_side'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} is {getattr(self, name)}, must not be negative')

    @property
    def tower_config(self) -> VideoLlama3VisionConfig:
        """The vision tower's configuration."""
        return cast('VideoLlama3VisionConfig', self.vision_encoder_config)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with the flat ``rope_theta`` older readers expect."""
        fields: dict[str, Any] = super().to_dict()
        fields['rope_theta'] = fields['rope_parameters']['rope_theta']
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that are written, with the ``torch_dtype`` older readers expect."""
        fields: dict[str, Any] = super().to_diff_dict()
        if 'dtype' in fields:
            fields['torch_dtype'] = fields['dtype']
        return fields
