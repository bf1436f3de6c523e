# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Declare the parameters that say which model finds things from words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixelrefer_ros.node.parameter import UNCONFIGURED
from pixelrefer_ros.node.parameter import parameter as _parameter

if TYPE_CHECKING:
    from pixelrefer_ros.models.chat.settings import ChatSettings


@dataclass(frozen=True)
class GroundingParameters:
    """Hold the parameters of ``grounding.``; a part of ``NodeParameters``."""

    grounding_model: str = _parameter(
        'grounding.model',
        '',
        "Vision language model that answers GROUND queries: 'tabletop' (embedded; it knows "
        'simulated tabletops and nothing else), a folder, or a hub name fetched with '
        "`pixelrefer fetch`, such as Qwen/Qwen2.5-VL-7B-Instruct; with grounding.url, the "
        "server's name for it. Empty, and no url: such queries are refused.",
        change=UNCONFIGURED,
    )
    grounding_url: str = _parameter(
        'grounding.url',
        '',
        'Base URL of an OpenAI-compatible server that runs the model instead, such as '
        'http://gpu-box:8000.',
        change=UNCONFIGURED,
    )
    grounding_profile: str = _parameter(
        'grounding.profile',
        'auto',
        "How the model is asked: 'revseg', 'qwen2.5-vl', 'qwen3-vl', 'tabletop', the path of a "
        "YAML file, or 'auto', by the architecture of a model on this machine.",
        change=UNCONFIGURED,
    )
    grounding_device: str = _parameter(
        'grounding.device',
        'auto',
        "Where the model runs: 'auto' (cuda if there is one, else cpu), 'cpu', 'cuda' or "
        "'cuda:N'.",
        change=UNCONFIGURED,
    )
    grounding_dtype: str = _parameter(
        'grounding.dtype',
        'auto',
        'Number format of its weights, as of model.dtype.',
        choices=('auto', 'float32', 'bfloat16', 'float16'),
        change=UNCONFIGURED,
    )
    grounding_quantization: str = _parameter(
        'grounding.quantization',
        'none',
        'Smaller weights: bnb4 and bnb8 need bitsandbytes, torchao-int4 torchao and a GPU, '
        'torchao-int8 torchao.',
        choices=('none', 'bnb4', 'bnb8', 'torchao-int4', 'torchao-int8'),
        change=UNCONFIGURED,
    )
    grounding_api_key_env: str = _parameter(
        'grounding.api_key_env',
        '',
        "Name of the environment variable that holds the server's API key; empty for none.",
        change=UNCONFIGURED,
    )
    grounding_ca_file: str = _parameter(
        'grounding.ca_file',
        '',
        "PEM file of the certificates to trust; empty for the system's.",
        change=UNCONFIGURED,
    )
    grounding_verify: bool = _parameter(
        'grounding.verify',
        True,
        "Whether the server's certificate is checked.",
        change=UNCONFIGURED,
    )
    grounding_connect_timeout_s: float = _parameter(
        'grounding.connect_timeout_s',
        5.0,
        'Longest wait for a connection to the server, and for its answer at configuring [s].',
        low=0.01,
        high=3600.0,
        change=UNCONFIGURED,
    )
    grounding_read_timeout_s: float = _parameter(
        'grounding.read_timeout_s',
        60.0,
        'Longest silence of the server, its reading of the images included [s].',
        low=0.01,
        high=3600.0,
        change=UNCONFIGURED,
    )
    grounding_retries: int = _parameter(
        'grounding.retries',
        4,
        'How often a request is sent again when the server is away or busy.',
        low=0,
        high=100,
        change=UNCONFIGURED,
    )
    ground_window_s: float = _parameter(
        'grounding.window_s',
        8.0,
        'How far back a GROUND query that does not say looks [s of image time].',
        low=0.001,
        high=86400.0,
    )

    @property
    def grounds(self) -> bool:
        """Return whether there is a model that finds things from words."""
        return bool(self.grounding_model or self.grounding_url)

    def chat_settings(self) -> ChatSettings:
        """Return which model is asked, and how it is run or reached."""
        # imported here: parameters are read before a model is wanted
        from pixelrefer_ros.models.chat.settings import ChatSettings

        return ChatSettings(
            model=self.grounding_model,
            url=self.grounding_url,
            device=self.grounding_device,
            dtype=self.grounding_dtype,
            quantization=self.grounding_quantization,
            api_key_env=self.grounding_api_key_env,
            ca_file=self.grounding_ca_file,
            verify=self.grounding_verify,
            connect_timeout_s=self.grounding_connect_timeout_s,
            read_timeout_s=self.grounding_read_timeout_s,
            retries=self.grounding_retries,
        )

    def _check_grounding(self) -> None:
        """Check what a descriptor cannot express.

        Raises:
            ValueError: With what to correct.
        """
        url = self.grounding_url
        if url and not url.startswith(('http://', 'https://')):
            raise ValueError(f'grounding.url {url!r}: it begins with http:// or https://')
        if url and self.grounding_profile == 'auto':
            raise ValueError(
                "grounding.profile 'auto': a server does not say what it runs; name the profile"
            )
