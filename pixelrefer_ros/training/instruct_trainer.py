# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run transformers' training loop on instruction data."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.training.instruct_batch import collate
from pixelrefer_ros.training.instruct_data import IGNORED, DataError, InstructData, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.inputs import RegionInputs
    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor
    from pixelrefer_ros.training.instruct import TuneOptions

logger = logging.getLogger(__name__)

MAX_LOGGED = 20
"""Refused samples that are logged one by one."""


def part_of(name: str) -> str | None:
    """Return the part a parameter belongs to: 'language', 'region' or 'vision'.

    None for parameters that published weights hold and Lite never calls.
    """
    if name.startswith(tuple(PixelReferConfig.unused_parts.values())):
        return None
    if name.startswith('model.vision_encoder.'):
        return 'vision'
    return 'region' if name.startswith('model.region_encoder.') else 'language'


class AnswerLoss(nn.Module):
    """Go from a batch to the loss of its answers: tower, region encoder, language model."""

    accepts_loss_kwargs = True

    def __init__(self, model: PixelReferForConditionalGeneration) -> None:
        """Hold the model."""
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        regions: RegionInputs,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L) int64, 0 on padding.
            labels: (B, L) int64, ``IGNORED`` off the answers.
            regions: Pictures of all samples, one packed call of the tower.
            num_items_in_batch: Answer tokens of the whole optimiser step; of this batch when
                None.

        Returns:
            'loss': scalar, the sum over this batch divided by that number.
        """
        embeds = self.model.embed(input_ids, self.model.encode(regions))
        hidden = self.model.model(
            inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        wanted = labels[:, 1:]
        places = wanted != IGNORED
        # the head is the widest layer: it only sees the tokens before those that count
        logits = self.model.lm_head(hidden[:, :-1][places]).float()
        total = functional.cross_entropy(logits, wanted[places], reduction='sum')
        count = places.sum() if num_items_in_batch is None else num_items_in_batch
        return {'loss': total / torch.as_tensor(count, device=total.device).clamp(min=1)}


class InstructTrainer(Trainer):
    """Run the loop with one learning rate per part and samples that may be refused."""

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: PixelReferForConditionalGeneration,
        processor: PixelReferProcessor,
        data: InstructData,
        out: Path,
        options: TuneOptions,
    ) -> None:
        """Freeze what is not trained and set the loop up."""
        self.tuned, self.processor, self.options = model, processor, options
        self._refused: dict[int, Refusal] = {}
        self._offered = len(data) + len(data.refused)
        rates = {
            'language': options.language_lr,
            'region': options.region_lr,
            'vision': options.vision_lr,
        }
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            part = part_of(name)
            rate = rates[part] if part else 0.0
            parameter.requires_grad_(rate > 0)
            if rate > 0:
                groups.setdefault(rate, []).append(parameter)
        self._groups = [{'params': group, 'lr': rate} for rate, group in groups.items()]
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable({'use_reentrant': False})
        super().__init__(
            model=AnswerLoss(model),
            args=_arguments(out, options),
            data_collator=partial(collate, pad_id=processor.tokenizer.pad_token_id or 0),
            train_dataset=data,
        )
        for refusal in data.refused:
            self._refuse(refusal)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make AdamW with the learning rate of each part."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                self._groups, weight_decay=self.options.weight_decay
            )
        return self.optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Take note of refused samples, then go on as usual."""
        for refusal in inputs.pop('refused'):
            self._refuse(refusal)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def finish(self, dtype: torch.dtype) -> tuple[Refusal, ...]:
        """Write the tuned model, and return the samples that were refused.

        Raises:
            DataError: No sample at all could be used.
        """
        refused = tuple(self._refused[index] for index in sorted(self._refused))
        if refused:
            logger.warning('%d samples could not be used and were passed over', len(refused))
        if len(refused) == self._offered:
            raise DataError(f'no sample could be used; {refused[0]}')
        self.tuned.to(dtype)
        # loading noted fp32 there; the tower has no dtype of its own
        self.tuned.tower.config.dtype = None
        self.save_model()
        return refused

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.index in self._refused:
            return
        self._refused[refusal.index] = refusal
        if self.options.strict:
            raise DataError(str(refusal))
        if len(self._refused) <= MAX_LOGGED:
            logger.warning('passed over: %s', refusal)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write a directory that ``from_pretrained`` loads."""
        if not self.args.should_save:
            return
        directory = output_dir or self.args.output_dir
        self.tuned.save_pretrained(directory)
        self.processor.save_pretrained(directory)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Leave the weights as they are: ``tune`` has read them from this checkpoint."""


def _arguments(out: Path, options: TuneOptions) -> TrainingArguments:
    on_cpu = options.device == 'cpu' or not torch.cuda.is_available()
    has_bf16 = not on_cpu and torch.cuda.is_bf16_supported()
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=options.epochs,
        max_steps=options.steps or -1,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        lr_scheduler_type='cosine',
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        bf16=options.precision == 'bf16' or (options.precision == 'auto' and has_bf16),
        use_cpu=on_cpu,
        seed=options.seed,
        save_strategy='steps',
        save_steps=options.save_every,
        save_total_limit=options.keep,
        logging_steps=options.log_every,
        disable_tqdm=not options.progress,
        report_to='none',
        remove_unused_columns=False,
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=not on_cpu,
    )
    if arguments.n_gpu > 1:
        # one process drives one GPU; several are for torchrun
        arguments._n_gpu = 1
    return arguments
