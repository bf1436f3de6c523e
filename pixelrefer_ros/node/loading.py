# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Load the models that the parameters name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.grounding.chain import GroundingChain
    from pixelrefer_ros.node.parameters import NodeParameters


def load_describer(parameters: NodeParameters) -> RegionDescriber:
    """Load the model and warm it up, so that the first question is not the slowest.

    Raises:
        PixelReferError: MODEL_ERROR or OUT_OF_MEMORY with what to do.
    """
    resolve(parameters.model_name)  # first: a missing model is said without waiting for torch
    # imported here: torch takes seconds, and the node shall answer before it has a model
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

    describer = PixelReferDescriber.load(
        parameters.model_name,
        device=parameters.model_device,
        dtype=parameters.model_dtype,
        max_new_tokens=parameters.model_max_new_tokens,
        quantization=parameters.model_quantization,
        feature_cache_mib=parameters.model_feature_cache_mib,
        prefix_cache_mib=parameters.model_prefix_cache_mib,
        resize=parameters.model_resize,
    )
    describer.warm_up()
    return describer


def load_grounder(parameters: NodeParameters) -> GroundingChain | None:
    """Load what finds things from words; None when no model is named for it.

    Raises:
        PixelReferError: BAD_REQUEST, MODEL_ERROR or OUT_OF_MEMORY with what to do.
    """
    if not parameters.grounds:
        return None
    # imported here: who grounds nothing needs none of it
    from pixelrefer_ros.grounding.load import load_grounder as load

    return load(parameters.chat_settings(), parameters.grounding_profile)
