# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold the configuration of PixelRefer-Lite, and what the full PixelRefer shares of it."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from huggingface_hub.dataclasses import strict
from transformers import Qwen2Config, VideoLlama3VisionConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from pixelrefer_ros.models.pixelrefer.prompts import REGION_TOKEN

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
class RegionModelConfig(Qwen2Config):
    """Hold what both kinds of PixelRefer have: Qwen2 fields, published keys, sizes, wording.

    Published files hold the Qwen2 fields and the ``mm_*`` keys, all flat. Keys the class does
    not know are kept and written back. The sizes below are constants in the paper; as fields
    they let a small model use small pictures.

    Attributes:
        kind: Name of the kind of model.
        unused_parts: Field → prefix of parameters it stands for, which are never called.
        placeholders: Token that holds a place for what the vision parts make → field with its id.
        vision_encoder_config: Vision tower; the published so400m when absent.
        use_mm_proj: Whether the weights hold ``mm_projector``, which Lite never calls.
        use_token_compression: Whether patches that do not change from one frame of a video to
            the next are left out; Lite has none of them in any case.
        mm_max_length: Pixel budget of a picture, in patches.
        spatial_merge_size: Side in patches of the square of a video frame that one token stands
            for; not used by Lite.
        mask_num: Tokens of one mask, at most.
        object_margin: Pixels around the mask's box in the object crop.
        large_object_patches: Patches that a large mask is scaled down to.
        kmeans_iterations: At most this many rounds of clustering.
        min_pixels: Smaller pictures are scaled up to this many pixels.
        working_long_side: Frames and masks are first scaled down so that their long side is at
            most this many pixels; 0 leaves them as they are.
        max_frames_per_region: Frames of one region the model wants to see at most.
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
        object_noun_image: What ``<objectK>`` is called in a picture: 'object' or 'region'.
        object_noun_video: The same for a video.
    """

    kind: ClassVar[str] = 'PixelRefer'
    unused_parts: ClassVar[dict[str, str]] = {}
    placeholders: ClassVar[dict[str, str]] = {REGION_TOKEN: 'region_token_index'}
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

    object_margin: int = 28
    large_object_patches: int = 50
    kmeans_iterations: int = 3
    min_pixels: int = 3136
    working_long_side: int = 0
    max_frames_per_region: int = 8
    compat_shared_budget: bool = False

    describe_prompt_image: str = 'Please describe the region <region> in the image in detail.'
    describe_prompt_video: str = 'Please describe <object0> in the video in detail.'
    one_object_prefix_image: str = 'There is a region in the image: {objects}.'
    one_object_prefix_video: str = 'There is an object in the video: {objects}.'
    many_objects_prefix_image: str = 'There are {count} regions in the image: {objects}.'
    many_objects_prefix_video: str = 'There are {count} objects in the video: {objects}.'
    object_noun_image: str = 'region'
    object_noun_video: str = 'object'

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
        self._check_not_below(
            1,
            'mask_num',
            'kmeans_iterations',
            'large_object_patches',
            'mm_max_length',
            'spatial_merge_size',
            'max_frames_per_region',
            'min_pixels',
        )
        self._check_not_below(0, 'object_margin', 'working_long_side')
        for name in ('object_noun_image', 'object_noun_video'):
            if getattr(self, name) not in ('object', 'region'):
                raise ValueError(f"{name} is '{getattr(self, name)}', must be object or region")

    @property
    def tower_config(self) -> VideoLlama3VisionConfig:
        """The vision tower's configuration."""
        return cast('VideoLlama3VisionConfig', self.vision_encoder_config)

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """Ids that hold places for what the vision parts make, in the order of their fields.

        Raises:
            ValueError: One of them is not set.
        """
        ids = {field: getattr(self, field) for field in self.placeholders.values()}
        for field, token_id in ids.items():
            if token_id is None:
                raise ValueError(f'config.{field} is not set')
        return tuple(ids.values())

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

    def _check_not_below(self, least: int, *names: str) -> None:
        """Refuse fields that are smaller than they may be."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f'{name} is {getattr(self, name)}, must be at least {least}')


@strict
class PixelReferConfig(RegionModelConfig):
    """Describe a PixelRefer-Lite model.

    Attributes:
        use_mask_embedding: Whether the weights hold ``mask_embedding``, which is never called.
        global_size: Side in pixels of the square the whole frame is scaled to.
        local_size: Side in pixels of the square the context crop is scaled to.
        context_margin: Pixels around the mask's box in the context crop.
        fusion_heads: Heads of the two cross attentions.
        compat_reuse_context: As the reference does, let all masks of a frame share the context
            crop of the first.
    """

    model_type = 'pixelreferlite_qwen2'
    kind: ClassVar[str] = 'PixelRefer-Lite'
    unused_parts: ClassVar[dict[str, str]] = {
        'use_mm_proj': 'model.mm_projector.',
        'use_mask_embedding': 'model.region_encoder.mask_embedding.',
    }

    use_mask_embedding: bool = True
    global_size: int = 336
    local_size: int = 224
    context_margin: int = 28
    fusion_heads: int = 8
    compat_reuse_context: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the sizes that only Lite has, too.

        Raises:
            ValueError: A size does not fit, with the name of the field.
        """
        super().__post_init__(**kwargs)
        width = self.tower_config.hidden_size
        if width % self.fusion_heads:
            raise ValueError(
                f'fusion_heads {self.fusion_heads} does not divide the vision width {width}'
            )
        for name in ('global_size', 'local_size'):
            size = getattr(self, name)
            if size < PATCH_SIZE or size % PATCH_SIZE:
                raise ValueError(f'{name} is {size}, must be a multiple of {PATCH_SIZE}')
        self._check_not_below(0, 'context_margin')
