# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test smaller weights of a describer: how small, how near, and what is refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.quantization import (
    PACKAGES,
    int4_kind,
    quantize,
    weight_bytes,
)
from pixelrefer_ros.models.pixelrefer.voice import Prompt, Voice
from tests.models.conftest import small_config, small_model

if TYPE_CHECKING:
    from pixelrefer_ros.models.pixelrefer import PixelReferProcessor

INT8, INT4 = 'torchao-int8', 'torchao-int4'
IDS = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def wide_model(dtype: torch.dtype = torch.float32) -> PixelReferForConditionalGeneration:
    """Return a model whose widths int4 can take, with weights as at the start of training."""
    torch.manual_seed(4)
    config = small_config(hidden_size=64, intermediate_size=96)
    return PixelReferForConditionalGeneration(config).eval().to(dtype)


def logits(model: PixelReferForConditionalGeneration) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.float()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(('name', 'bytes_each', 'off'), [(INT8, 1.0, 0.02), (INT4, 0.5, 0.2)])
def test_weights_shrink_and_still_mean_about_the_same(
    name: str, bytes_each: float, off: float, dtype: torch.dtype
) -> None:
    pytest.importorskip('torchao')
    model = wide_model(dtype)
    before = logits(model)
    others = {key: one.clone() for key, one in model.state_dict().items() if '.layers.' not in key}
    assert any('vision_encoder' in key for key in others)
    layers = model.model.layers
    linear = [one.weight for one in layers.modules() if isinstance(one, torch.nn.Linear)]
    weights, rows = sum(one.numel() for one in linear), sum(len(one) for one in linear)
    rest = weight_bytes(layers) - weights * dtype.itemsize
    quantize(model, name)
    scales = weights / 32 * 2 * dtype.itemsize if name == INT4 else 8 * rows
    assert weight_bytes(layers) <= bytes_each * weights + scales + rest
    error = (logits(model) - before).norm() / before.norm()
    assert 0 < error < off
    assert model.dtype == dtype
    state = model.state_dict()
    assert all(torch.equal(state[key], one) for key, one in others.items())
    tower = model.tower.encoder.layers[0].mlp.fc1.weight
    assert type(tower) is torch.nn.Parameter


def test_int4_is_further_off_than_int8() -> None:
    pytest.importorskip('torchao')
    before = logits(wide_model())
    errors = {}
    for name in (INT8, INT4):
        model = wide_model()
        quantize(model, name)
        errors[name] = float((logits(model) - before).norm())
    assert errors[INT4] > 3 * errors[INT8]


@pytest.mark.parametrize('name', [INT8, INT4])
@pytest.mark.parametrize('static', [False, True])
def test_quantized_models_speak_in_batches_as_alone(
    processor: PixelReferProcessor, name: str, static: bool
) -> None:
    pytest.importorskip('torchao')
    model = small_model(small_config(hidden_size=64, intermediate_size=96))
    quantize(model, name)
    generator = torch.Generator().manual_seed(2)
    prompts = [
        Prompt(
            torch.randint(0, 256, (length,), generator=generator),
            torch.zeros(0, 64),
            torch.zeros(0, 2, dtype=torch.int64),
        )
        for length in (4, 50, 90)
    ]
    voice = Voice(model, processor, max_new_tokens=10, static=static)
    together: dict[int, tuple[int, ...]] = {}
    voice.say(
        prompts,
        should_stop=[lambda: False] * 3,
        on_text=[None] * 3,
        on_said=lambda place, said: together.setdefault(place, said.token_ids),
    )
    with torch.inference_mode():
        alone = [
            model.generate(
                one.input_ids[None],
                attention_mask=torch.ones(1, len(one.input_ids), dtype=torch.int64),
                max_new_tokens=10,
                do_sample=False,
                eos_token_id=258,
                pad_token_id=256,
            )[0, len(one.input_ids) :].tolist()
            for one in prompts
        ]
    assert [list(together[place]) for place in range(3)] == alone


def test_none_leaves_the_model_alone() -> None:
    model = wide_model()
    before = {key: one.data_ptr() for key, one in model.state_dict().items()}
    quantize(model, 'none')
    assert {key: one.data_ptr() for key, one in model.state_dict().items()} == before


def refusal(model: PixelReferForConditionalGeneration, name: str) -> str:
    with pytest.raises(PixelReferError) as caught:
        quantize(model, name)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    return str(caught.value)


@pytest.mark.parametrize('name', ['int8', 'bnb4', ''])
def test_other_kinds_are_refused(name: str) -> None:
    says = refusal(wide_model(), name)
    assert f"quantization is '{name}'" in says
    assert "'none' or one of torchao-int8, torchao-int4" in says


@pytest.mark.parametrize('name', list(PACKAGES))
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pixelrefer_ros.models.quantization.find_spec', lambda package: None)
    assert "run `pip install torchao`, or set it to 'none'" in refusal(wide_model(), name)


def test_int4_refuses_widths_it_cannot_group() -> None:
    pytest.importorskip('torchao')
    model = small_model(small_config(hidden_size=64, intermediate_size=72))
    says = refusal(model, INT4)
    assert "layer 0.mlp.gate_proj has 72 rows of 64: use 'torchao-int8'" in says
    assert type(model.model.layers[0].self_attn.q_proj.weight) is torch.nn.Parameter


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_int4_on_cuda_takes_bfloat16_alone(dtype: torch.dtype) -> None:
    pytest.importorskip('torchao')
    with pytest.raises(PixelReferError, match="set dtype to 'bfloat16', or use 'torchao-int8'"):
        int4_kind('cuda', dtype)
    assert int4_kind('cuda', torch.bfloat16).group_size == 32


def test_int4_on_a_cpu_names_the_torchao_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('torchao')
    monkeypatch.setitem(sys.modules, 'torchao.prototype.quantization.int4', None)
    assert 'torchao==0.18' in refusal(wide_model(), INT4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', [INT8, INT4])
def test_cuda_takes_both(name: str) -> None:
    pytest.importorskip('torchao')
    model = wide_model(torch.bfloat16).cuda()
    with torch.inference_mode():
        before = model(IDS.cuda()).logits.float()
        quantize(model, name)
        after = model(IDS.cuda()).logits.float()
    assert 0 < float((after - before).norm() / before.norm()) < 0.3
