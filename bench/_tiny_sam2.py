# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make a SAM 2 of a million random weights: its masks mean nothing, its machinery is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Pointers are split into memory channels, of which there must be 64, and more than one.
_HIDDEN = 128
# Wide enough that what is remembered shows in the masks.
_SPREAD = 0.1
# Large enough that mask logits lie well away from 0, as those of trained weights do.
_DECIDED = 100.0


def tiny_config(image_size: int = 64) -> Sam2VideoConfig:
    """Return the smallest configuration that runs.

    Args:
        image_size: Side of the square the model sees, a multiple of 32.
    """
    grid = image_size // 16
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 2, 1, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[2],
        initializer_range=_SPREAD,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
        fpn_hidden_size=_HIDDEN,
        initializer_range=_SPREAD,
    )
    return Sam2VideoConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={'hidden_size': _HIDDEN, 'image_size': image_size},
        mask_decoder_config={
            'hidden_size': _HIDDEN,
            'mlp_dim': 128,
            'num_attention_heads': 4,
            'iou_head_hidden_dim': 64,
        },
        initializer_range=_SPREAD,
        image_size=image_size,
        memory_attention_hidden_size=_HIDDEN,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=_HIDDEN,
        mask_downsampler_embed_dim=_HIDDEN,
        memory_fuser_embed_dim=_HIDDEN,
        memory_fuser_intermediate_dim=128,
        memory_fuser_num_layers=1,
    )


def tiny_model(image_size: int = 64, seed: int = 0) -> PreTrainedModel:
    """Return a model of that configuration that is sure of what it says, and sees all regions."""
    torch.manual_seed(seed)
    model = Sam2VideoModel(tiny_config(image_size)).eval()
    with torch.no_grad():
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(_DECIDED)
    believe(model, True)
    return model


def believe(model: PreTrainedModel, present: bool) -> None:
    """Make a model say of any region that it is in the frame, or that it is not."""
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.weight.zero_()
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5.0 if present else -5.0)
