# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read instruction data in the published format and make training samples of them.

PixelRefer, training section: every turn is tokenised by itself, labels lie on what the
assistant says, its end token included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.pixelrefer import prompts
from pixelrefer_ros.training.instruct_media import read_mask, read_picture, read_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.inputs import RegionInputs
    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

IGNORED = -100
"""Label of a token that is not trained."""

PROBED = 32
"""Samples that are looked at before training starts."""

TURN_END = '<|im_end|>'
MEDIA_TAGS = ('<image>', '<video>')
"""Marks of the place of a picture, which Lite does not read."""


class DataError(PixelReferError):
    """Report instruction data that cannot be used."""

    def __init__(self, message: str) -> None:
        """Take the BAD_REQUEST code: the caller named the data."""
        super().__init__(ErrorCode.BAD_REQUEST, message)


@dataclass(frozen=True)
class Refusal:
    """Say which sample cannot be used and why.

    Attributes:
        path: The data file.
        index: Place of the sample in it, from 0.
        reason: What is wrong.
    """

    path: str
    index: int
    reason: str

    def __str__(self) -> str:
        """Return one line."""
        return f'{self.path}, sample {self.index}: {self.reason}'


@dataclass(frozen=True)
class Sample:
    """Hold one conversation, ready for the model.

    Attributes:
        input_ids: (L,) int64.
        labels: (L,) int64, ``IGNORED`` off the answers.
        regions: The pictures of its masks, in the order of the region tokens.
    """

    input_ids: Tensor
    labels: Tensor
    regions: RegionInputs


@dataclass(frozen=True)
class Outline:
    """Hold a sample as it is written, checked, nothing decoded.

    Attributes:
        media: The picture or video.
        video: Whether it is a video.
        size: (height, width) as the sample states it, None where it does not.
        turns: (question, answer) each; questions hold one ``<region>`` per object.
        objects: Per object, (frame number, annotation) ascending; frame 0 for a picture.
    """

    media: Path
    video: bool
    size: tuple[int, int] | None
    turns: tuple[tuple[str, str], ...]
    objects: tuple[tuple[tuple[int, Any], ...], ...]


def load_records(path: Path) -> list[Any]:
    """Read a JSON array, or JSON lines when the name ends in .jsonl.

    Raises:
        DataError: The file is missing, is not JSON, or holds no sample.
    """
    try:
        text = path.read_text(encoding='utf-8')
        if path.suffix.lower() == '.jsonl':
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            records = json.loads(text)
    except OSError as error:
        raise DataError(f'cannot read {path}: {error.strerror or error}') from error
    except ValueError as error:
        raise DataError(f'{path} is not JSON: {error}; name JSON lines *.jsonl') from error
    if not isinstance(records, list) or not records:
        raise DataError(f'{path} holds no samples; it must be a JSON array, or lines (*.jsonl)')
    return records


def outline(record: Any, root: Path) -> Outline:
    """Check how a sample is built.

    Args:
        record: One element of the data file.
        root: Folder its picture or video path starts from.

    Raises:
        ValueError: Saying what is wrong.
    """
    if not isinstance(record, dict):
        raise ValueError('it is no JSON object')
    kinds = [kind for kind in ('image', 'video') if kind in record]
    if len(kinds) != 1:
        raise ValueError(f"it needs 'image' or 'video', it has {' and '.join(kinds) or 'neither'}")
    kind = kinds[0]
    if not isinstance(record[kind], str):
        raise ValueError(f"'{kind}' must be a path")
    media = root / record[kind]
    if not media.exists():
        raise ValueError(f'there is no {media}')
    size = None
    if record.get('width') is not None and record.get('height') is not None:
        size = (int(record['height']), int(record['width']))
    turns = _turns(record.get('conversations'))
    objects = _objects(record.get('masks'), kind == 'video')
    marks = sum(question.count(prompts.REGION_MARK) for question, _ in turns)
    if marks != len(objects):
        raise ValueError(
            f'its questions have {marks} {prompts.REGION_MARK} marks for {len(objects)} masks'
        )
    return Outline(media, kind == 'video', size, turns, objects)


def _turns(conversations: Any) -> tuple[tuple[str, str], ...]:
    """Return the questions and answers, media tags taken out."""
    if not isinstance(conversations, list) or not conversations or len(conversations) % 2:
        raise ValueError("'conversations' must be pairs of a human and a gpt turn")
    texts = []
    for place, turn in enumerate(conversations):
        speaker = ('human', 'gpt')[place % 2]
        if not isinstance(turn, dict) or turn.get('from') != speaker:
            raise ValueError(f"turn {place} must be from '{speaker}'")
        text = turn.get('value')
        if not isinstance(text, str):
            raise ValueError(f'turn {place} has no text')
        for tag in MEDIA_TAGS:
            text = text.replace(tag, '')
        text = text.strip()
        if not text:
            raise ValueError(f'turn {place} is empty')
        words = text.replace(prompts.REGION_MARK, '') if speaker == 'human' else text
        forbidden = prompts.FORBIDDEN.search(words)
        if forbidden:
            raise ValueError(f'turn {place} holds {forbidden[0]}, which is no word')
        texts.append(text)
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def _objects(masks: Any, video: bool) -> tuple[tuple[tuple[int, Any], ...], ...]:
    """Return the annotations of each object by frame; null in a video is 'not to be seen'."""
    if not isinstance(masks, list) or not masks:
        raise ValueError("it needs 'masks': the model sees nothing of a picture but its regions")
    if not video:
        return tuple(((0, mask),) for mask in masks)
    objects = []
    for number, by_frame in enumerate(masks):
        if not isinstance(by_frame, dict):
            raise ValueError(f'mask {number} of a video must be an object of frame: mask')
        try:
            frames = {int(frame): mask for frame, mask in by_frame.items() if mask is not None}
        except ValueError as error:
            raise ValueError(f'mask {number} has a frame that is no number') from error
        if min(frames, default=0) < 0:
            raise ValueError(f'mask {number} has a negative frame number')
        objects.append(tuple(sorted(frames.items())))
    return tuple(objects)


def tokenise(
    processor: PixelReferProcessor,
    turns: Sequence[tuple[str, str]],
    regions: Sequence[str],
    max_length: int,
) -> tuple[Tensor, Tensor]:
    """Turn a conversation into token ids and labels.

    Args:
        processor: Of the model.
        turns: (question, answer) each.
        regions: What stands for each object, in the order of the marks.
        max_length: Tokens past this are cut off.

    Returns:
        (L,) int64 ids; (L,) int64 labels, the answers with their end tokens, else ``IGNORED``.

    Raises:
        ValueError: Region tokens or all labels would be cut off, or an answer holds words that
            the tokenizer does not know.
    """
    ids: list[int] = []
    labels: list[int] = []
    used = 0
    for question, answer in turns:
        marks = question.count(prompts.REGION_MARK)
        filled = prompts.fill_regions(question, regions[used : used + marks])
        used += marks
        asked = _encode(processor, prompts.user_turn(filled))
        said = _encode(processor, answer + TURN_END)
        if processor.tokenizer.unk_token_id in said:
            raise ValueError(f'the model has no tokens for all words of the answer {answer!r}')
        after = _encode(processor, '\n')
        ids += [*asked, *said, *after]
        labels += [*[IGNORED] * len(asked), *said, *[IGNORED] * len(after)]
    if processor.config.region_token_index in ids[max_length:]:
        raise ValueError(
            f'region tokens lie beyond the limit of {max_length} tokens: use fewer masks'
        )
    ids, labels = ids[:max_length], labels[:max_length]
    if all(label == IGNORED for label in labels):
        raise ValueError(f'no answer lies within the limit of {max_length} tokens')
    return torch.tensor(ids), torch.tensor(labels)


def _encode(processor: PixelReferProcessor, text: str) -> list[int]:
    ids: list[int] = processor.encode(text)[0].tolist()
    return ids


class InstructData(Dataset[Sample | Refusal]):
    """Offer the samples of a data file.

    How samples are built is checked at once; pictures and masks are read when asked for, so
    that an element may turn out to be a ``Refusal``.

    Attributes:
        refused: The samples that were left out at once.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None,
        processor: PixelReferProcessor,
        *,
        max_length: int,
        max_frames: int = 0,
    ) -> None:
        """Read the data file.

        Args:
            path: JSON array or JSON lines.
            root: Folder that pictures and videos lie in; None for that of the file.
            processor: Of the model.
            max_length: Tokens of a sample at most.
            max_frames: Frames of one object at most, spread evenly; 0 for all.

        Raises:
            DataError: The file cannot be read, or none of its samples is well built.
        """
        self._path = Path(path)
        self._processor = processor
        self._max_length, self._max_frames = max_length, max_frames
        folder = self._path.parent if root is None else Path(root)
        self._outlines: list[tuple[int, Outline]] = []
        self.refused: list[Refusal] = []
        for index, record in enumerate(load_records(self._path)):
            try:
                self._outlines.append((index, outline(record, folder)))
            except (ValueError, TypeError) as error:
                self.refused.append(Refusal(str(path), index, str(error)))
        if not self._outlines:
            raise DataError(f'no sample can be used; {self.refused[0]}')

    def __len__(self) -> int:
        """Return how many samples are well built."""
        return len(self._outlines)

    def __getitem__(self, place: int) -> Sample | Refusal:
        """Return a sample, or why it cannot be used."""
        index, plan = self._outlines[place]
        try:
            return self._read(plan)
        except (ValueError, PixelReferError) as error:
            return Refusal(str(self._path), index, str(error))

    def probe(self) -> None:
        """Make sure that one of the first samples can be used.

        What is wrong with all of them (a wrong root, masks of another size) shows at once and
        not after an hour.

        Raises:
            DataError: None of them can be used.
        """
        for place in range(min(len(self), PROBED)):
            item = self[place]
            if isinstance(item, Sample):
                return
        raise DataError(f'none of the first {place + 1} samples can be used; {item}')

    def _read(self, plan: Outline) -> Sample:
        seen = [self._seen(number, plan) for number in range(len(plan.objects))]
        numbers = sorted({frame for masks in seen for frame in masks})
        if plan.video:
            frames, fps = read_video(plan.media, numbers)
            times_s = [[frame / fps for frame in masks] for masks in seen]
        else:
            frames, times_s = [read_picture(plan.media)], None
        count = self._processor.config.mask_num
        texts = [
            prompts.region_text(len(masks), count, times_s[number] if times_s else None)
            for number, masks in enumerate(seen)
        ]
        ids, labels = tokenise(self._processor, plan.turns, texts, self._max_length)
        regions = self._processor.regions(
            frames,
            [mask for masks in seen for mask in masks.values()],
            [numbers.index(frame) for masks in seen for frame in masks],
        )
        return Sample(ids, labels, regions)

    def _seen(self, number: int, plan: Outline) -> dict[int, NDArray[np.uint8]]:
        """Return the masks of an object by frame, those that show anything."""
        masks = {frame: read_mask(note, plan.size) for frame, note in plan.objects[number]}
        masks = {frame: mask for frame, mask in masks.items() if mask.any()}
        if not masks:
            raise ValueError(f'mask {number} is empty')
        if not self._max_frames:
            return masks
        return {frame: masks[frame] for frame in spread(list(masks), self._max_frames)}
