# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Size the embedded ``tabletop`` model and put a fresh one together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor
from pixelrefer_ros.models.pixelrefer.prompts import REGION_TOKEN
from pixelrefer_ros.training.fast_tower import start_looking_around

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 40


def tabletop_config(tokenizer: PreTrainedTokenizerBase) -> PixelReferConfig:
    """Return the sizes of the tabletop model: 1.8 million parameters, made for one CPU core."""
    return PixelReferConfig(
        vision_encoder_config={
            'hidden_size': 128, 'intermediate_size': 384, 'num_hidden_layers': 4,
            'num_attention_heads': 4, 'num_channels': 3, 'patch_size': 14,
            # Its pictures are a few patches wide: positions must turn fast to be told apart.
            'rope_parameters': {'rope_type': 'axial', 'rope_theta': 10.0},
        },
        hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, vocab_size=len(tokenizer),
        tie_word_embeddings=True, rope_parameters={'rope_type': 'default', 'rope_theta': 1e4},
        mask_num=8, global_size=140, local_size=196, object_margin=9, context_margin=50,
        large_object_patches=20, kmeans_iterations=2, min_pixels=196, working_long_side=384,
        max_frames_per_region=4, use_mm_proj=False, use_mask_embedding=False,
        mm_max_length=1024, fusion_heads=8,
        describe_prompt_image='Describe it.', describe_prompt_video='Describe it.',
        one_object_prefix_image='Object: {objects}.', one_object_prefix_video='Object: {objects}.',
        many_objects_prefix_image='Objects: {objects}.',
        many_objects_prefix_video='Objects: {objects}.', object_noun_image='object',
        region_token_index=tokenizer.convert_tokens_to_ids(REGION_TOKEN),
        bos_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def fresh_model(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> PixelReferForConditionalGeneration:
    """Return an untrained tabletop model, started so that positions matter from step one."""
    torch.manual_seed(seed)
    model = PixelReferForConditionalGeneration(tabletop_config(tokenizer))
    model.set_attn_implementation('eager')  # its backward pass is the faster one on a CPU
    start_looking_around(model.tower)
    _start_language(model)
    with torch.no_grad():
        # A usual start would make a motion of 15 cm a change of 0.06, lost among the features.
        place = model.region_encoder.pos_linear
        place.weight.normal_(0, 3.0)
        place.bias.copy_(-0.5 * place.weight.sum(1))
    return model


@torch.no_grad()
def _start_language(model: PixelReferForConditionalGeneration) -> None:
    """Start the language model's matrices at the scale of its width.

    The usual 0.02 is made for widths in the thousands: at 128 all attention would be even, and
    all logits nearly equal, for hundreds of steps.
    """
    width = model.config.hidden_size
    residual = (2 * model.config.num_hidden_layers) ** -0.5
    for name, matrix in model.model.layers.named_parameters():
        if matrix.ndim == 2:
            scale = residual if name.endswith(('o_proj.weight', 'down_proj.weight')) else 1.0
            matrix.normal_(0, scale * matrix.shape[1] ** -0.5)
    model.model.embed_tokens.weight.normal_(0, width**-0.5)


def save_model(
    model: PixelReferForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Save a copy in half precision, with tokenizer and generation settings."""
    copy = PixelReferForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config.max_new_tokens = MAX_NEW_TOKENS
    copy.half().save_pretrained(folder)
    PixelReferProcessor(model.config, tokenizer).save_pretrained(folder)
