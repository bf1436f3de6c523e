# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how instruction data are read: masks, pictures, conversations, labels, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.models.pixelrefer import PixelReferProcessor
from pixelrefer_ros.training.instruct_batch import collate, join_regions
from pixelrefer_ros.training.instruct_data import (
    IGNORED,
    DataError,
    InstructData,
    Refusal,
    Sample,
    load_records,
    tokenise,
)
from pixelrefer_ros.training.instruct_media import (
    read_mask,
    read_picture,
    read_video,
    uncompress,
)
from pixelrefer_ros.training.instruct_trainer import AnswerLoss
from tests.models.conftest import box_mask, picture, small_config, small_model, write_tokenizer

if TYPE_CHECKING:
    from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration

ROOT = Path(__file__).resolve().parents[2]

FPS = 4.0
LEVELS = (20, 60, 100, 140, 180, 220)
"""Grey of each frame of the video, in order."""


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {'size': list(mask.shape), 'counts': list(masks.encode(mask).counts)}


def write_video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), FPS, (80, 60))
    for level in LEVELS:
        writer.write(np.full((60, 80, 3), level, np.uint8))
    writer.release()


def write_picture(path: Path, rgb: np.ndarray) -> None:
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    write_picture(folder / 'table.png', picture(0))
    write_video(folder / 'roll.avi')
    return folder


@pytest.fixture(scope='module')
def model() -> PixelReferForConditionalGeneration:
    return small_model(small_config())


@pytest.fixture(scope='module')
def processor(tmp_path_factory: pytest.TempPathFactory) -> PixelReferProcessor:
    folder = tmp_path_factory.mktemp('tokenizer')
    write_tokenizer(folder)
    return PixelReferProcessor.from_pretrained(folder, config=small_config())


def talk(*texts: str) -> list[dict[str, str]]:
    return [
        {'from': ('human', 'gpt')[place % 2], 'value': text} for place, text in enumerate(texts)
    ]


def image_record(**changes: Any) -> dict[str, Any]:
    record = {
        'image': 'table.png',
        'masks': [rle(box_mask(5, 5, 20, 20)), rle(box_mask(30, 40, 20, 30))],
        'conversations': talk(
            '<image>\nThere are two: <object0><region>, <object1><region>. Which is red?',
            'The first one.',
            'And how large is it?',
            'Ten centimetres.',
        ),
    }
    return {**record, **changes}


def video_record(**changes: Any) -> dict[str, Any]:
    record = {
        'video': 'roll.avi',
        'masks': [
            {'1': rle(box_mask(5, 5, 20, 20)), '5': rle(box_mask(5, 30, 20, 20)),
             '3': rle(np.zeros((60, 80)))},
            {'2': rle(box_mask(30, 40, 20, 30)), '0': None},
        ],
        'conversations': talk('<video>First: <region>.', 'It rolls.', 'Then: <region>?', 'No.'),
    }
    return {**record, **changes}


def dataset(
    root: Path, processor: PixelReferProcessor, *records: Any, **options: Any
) -> InstructData:
    path = root / 'data.json'
    path.write_text(json.dumps(records), encoding='utf-8')
    return InstructData(path, None, processor, **{'max_length': 4096, **options})


def sample(data: InstructData, place: int = 0) -> Sample:
    item = data[place]
    assert isinstance(item, Sample), str(item)
    return item


# What COCO's own tools write for these masks.
COMPRESSED = (
    (
        [(10, 10, 10, 4), (40, 50, 4, 9), (59, 79, 1, 1)],
        (60, 80),
        'Rc0:b100000^T2JhkM000000000000000SV1M',
    ),
    (
        [(100, 200, 200, 1), (5, 450, 390, 10)],
        (400, 500),
        'TW^2X6i[Q3n5adnL00000000000000000kc?',
    ),
)


@pytest.mark.parametrize(('boxes', 'size', 'text'), COMPRESSED)
def test_compressed_run_lengths(
    boxes: list[tuple[int, int, int, int]], size: tuple[int, int], text: str
) -> None:
    expected = np.zeros(size, np.uint8)
    for box in boxes:
        expected |= box_mask(*box, size=size)
    found = read_mask({'size': list(size), 'counts': text}, None)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert np.array_equal(read_mask(rle(expected), None), expected)


@pytest.mark.parametrize('text', ['Rc', 'é', '!!'])
def test_broken_compressed_run_lengths(text: str) -> None:
    with pytest.raises(ValueError, match='compressed run lengths'):
        uncompress(text)


def test_polygons() -> None:
    square, other = [10, 10, 29, 10, 29, 29, 10, 29], [20, 20, 39, 20, 39, 39, 20, 39]
    expected = box_mask(10, 10, 20, 20) | box_mask(20, 20, 20, 20)
    assert np.array_equal(read_mask([square, other], (60, 80)), expected)
    alone = box_mask(10, 10, 20, 20)
    assert np.array_equal(read_mask(square, (60, 80)), alone)
    assert np.array_equal(read_mask([[10.2, 9.8], [29, 10], [29, 29], [10, 29]], (60, 80)), alone)


@pytest.mark.parametrize(
    ('annotation', 'reason'),
    [
        ([[1, 2, 3, 4]], 'three points'),
        ([[1, 2, 3, 4, 5, None]], 'three points'),
        (['a'], 'three points'),
        ([], 'neither'),
        (7, 'neither'),
        ({'counts': [1]}, 'size'),
        ({'size': [2, 2]}, 'counts'),
    ],
)
def test_unusable_masks(annotation: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_mask(annotation, (60, 80))


def test_video_frames_are_those_asked_for(root: Path) -> None:
    frames, fps = read_video(root / 'roll.avi', [1, 2, 5])
    assert fps == FPS
    assert [round(float(frame.mean()) / 20) * 20 for frame in frames] == [60, 100, 220]
    assert frames[0].shape == (60, 80, 3)
    with pytest.raises(ValueError, match='frame 6 is masked.*has 6 frames'):
        read_video(root / 'roll.avi', [0, 6])


def test_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / f'{number:03}.png', picture(number))
    frames, fps = read_video(tmp_path, [0, 2])
    assert fps == 3.0
    assert np.array_equal(frames[1], picture(2))
    with pytest.raises(ValueError, match='has 3 pictures'):
        read_video(tmp_path, [3])


def test_pictures_are_read_in_colour(root: Path) -> None:
    assert np.array_equal(read_picture(root / 'table.png'), picture(0))


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / 'data.jsonl'
    path.write_text('{"a": 1}\n\n{"a": 2}\n', encoding='utf-8')
    assert load_records(path) == [{'a': 1}, {'a': 2}]


@pytest.mark.parametrize('text', ['', '{"a": 1}', '[]', '[1,'])
def test_unusable_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'data.json'
    with pytest.raises(DataError, match='cannot read'):
        load_records(path)
    path.write_text(text, encoding='utf-8')
    with pytest.raises(DataError, match=str(path)):
        load_records(path)


def test_picture_sample(root: Path, processor: PixelReferProcessor) -> None:
    found = sample(dataset(root, processor, image_record()))
    region = '[' + '<REGION>' * 8 + ']'
    assert processor.tokenizer.decode(found.input_ids) == (
        f'<|im_start|>user\nThere are two: <object0>{region}, <object1>{region}. Which is red?'
        '<|im_end|>\n<|im_start|>assistant\nThe first one.<|im_end|>\n'
        '<|im_start|>user\nAnd how large is it?<|im_end|>\n'
        '<|im_start|>assistant\nTen centimetres.<|im_end|>\n'
    )
    two = [box_mask(5, 5, 20, 20), box_mask(30, 40, 20, 30)]
    expected = processor.regions([picture(0)], two, [0, 0])
    assert torch.equal(found.regions.crops.patches, expected.crops.patches)
    assert torch.equal(found.regions.frames.patches, expected.frames.patches)
    assert torch.equal(found.regions.layout.cells, expected.layout.cells)


def test_video_sample(root: Path, processor: PixelReferProcessor) -> None:
    found = sample(dataset(root, processor, video_record()))
    tokens = '<REGION>' * 8
    text = processor.tokenizer.decode(found.input_ids)
    # frames 1 and 5, then 2, at 4 frames per second
    assert f'First: [Time 0.2:{tokens},Time 1.2:{tokens}].<|im_end|>' in text
    assert f'Then: [Time 0.5:{tokens}]?<|im_end|>' in text
    assert len(found.regions.frames.grids) == 3
    assert found.regions.frame_index.tolist() == [0, 2, 1]


def test_frames_are_spread_where_there_are_too_many(
    root: Path, processor: PixelReferProcessor
) -> None:
    every = {str(frame): rle(box_mask(5, 5 + frame, 20, 20)) for frame in range(6)}
    record = video_record(masks=[every], conversations=talk('<region>?', 'Yes.'))
    text = processor.tokenizer.decode(
        sample(dataset(root, processor, record, max_frames=3)).input_ids
    )
    assert [time in text for time in ('Time 0.0:', 'Time 0.5:', 'Time 1.2:')] == [True] * 3
    assert text.count('Time') == 3


def test_labels_are_the_answers_and_nothing_else(
    root: Path, processor: PixelReferProcessor
) -> None:
    found = sample(dataset(root, processor, image_record()))
    labelled = found.labels != IGNORED
    assert torch.equal(found.labels[labelled], found.input_ids[labelled])
    edges = torch.diff(labelled.int(), prepend=torch.zeros(1, dtype=torch.int32))
    starts, ends = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    spoken = [
        processor.tokenizer.decode(found.input_ids[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]
    assert spoken == ['The first one.<|im_end|>', 'Ten centimetres.<|im_end|>']
    for start in starts.tolist():
        before = processor.tokenizer.decode(found.input_ids[:start])
        assert before.endswith('<|im_start|>assistant\n')


def test_prompts_are_those_of_inference(root: Path, processor: PixelReferProcessor) -> None:
    found = sample(dataset(root, processor, image_record()))
    first = int((found.labels != IGNORED).nonzero()[0])
    asked = processor.prompt(
        'There are two: <object0><region>, <object1><region>. Which is red?', [1, 1]
    )
    assert torch.equal(found.input_ids[:first], processor.encode(asked)[0])


def test_long_samples_are_cut_but_never_in_regions(processor: PixelReferProcessor) -> None:
    turns, regions = [('<region>?', 'Yes, it is.')], ['[' + '<REGION>' * 8 + ']']
    ids, labels = tokenise(processor, turns, regions, 4096)
    answer = int((labels != IGNORED).nonzero()[0])
    cut, kept = tokenise(processor, turns, regions, answer + 3)
    assert torch.equal(cut, ids[: answer + 3])
    assert processor.tokenizer.decode(kept[kept != IGNORED]) == 'Yes'
    with pytest.raises(ValueError, match='no answer lies within'):
        tokenise(processor, turns, regions, answer)
    with pytest.raises(ValueError, match='region tokens lie beyond'):
        tokenise(processor, turns, regions, 8)


def test_answers_in_unknown_words_are_refused() -> None:
    tabletop = PixelReferProcessor.from_pretrained('tabletop')
    tokenise(tabletop, [('What is it?', 'It is red.')], [], 100)
    with pytest.raises(ValueError, match='no tokens for all words.*xylophone'):
        tokenise(tabletop, [('What is it?', 'A xylophone.')], [], 100)


@pytest.mark.parametrize(
    ('record', 'reason'),
    [
        (7, 'no JSON object'),
        (image_record(video='roll.avi'), "'image' or 'video', it has image and video"),
        (image_record(image=3), "'image' must be a path"),
        (image_record(image='gone.png'), 'there is no .*gone.png'),
        (image_record(masks=None), "needs 'masks'"),
        (image_record(masks=[rle(box_mask(5, 5, 20, 20))]), '2 <region> marks for 1 masks'),
        (image_record(masks=[rle(box_mask(5, 5, 2, 2)), None]), 'neither run lengths'),
        (image_record(masks=[[[1, 1, 9, 1, 9, 9]]] * 2), 'width and height'),
        (image_record(masks=[rle(np.zeros((60, 80))), rle(box_mask(5, 5, 2, 2))]), '0 is empty'),
        (image_record(masks=[rle(np.ones((6, 8))), rle(box_mask(5, 5, 2, 2))]), '8x6 pixels'),
        (
            image_record(masks=[{'size': [60, 80], 'counts': [5]}, rle(box_mask(5, 5, 2, 2))]),
            'add up',
        ),
        (image_record(conversations=[]), 'pairs'),
        (image_record(conversations=talk('<region><region>', 'Yes', 'Why?')), 'pairs'),
        (image_record(conversations=talk('<region><region>', ' ')), 'turn 1 is empty'),
        (image_record(conversations=talk('<region>', '<region>')), 'turn 1 holds <region>'),
        (image_record(conversations=talk('<region><|im_end|>', 'A')), r'turn 0 holds <\|im_end'),
        (
            image_record(conversations=[{'from': 'gpt', 'value': 'A'}] * 2),
            "turn 0 must be from 'human'",
        ),
        (video_record(masks=[[1], [2]]), 'object of frame: mask'),
        (video_record(masks=[{'a': 1}, {}]), 'no number'),
        (video_record(masks=[{'-1': 1}, {}]), 'negative'),
        (video_record(masks=[{'1': rle(box_mask(5, 5, 2, 2))}, {}]), 'mask 1 is empty'),
        (video_record(masks=[{'9': rle(box_mask(5, 5, 2, 2))}] * 2), 'has 6 frames'),
        (video_record(video='table.png', width='x', height=1), 'invalid literal'),
    ],
)
def test_unusable_samples_say_why(
    root: Path, processor: PixelReferProcessor, record: Any, reason: str
) -> None:
    data = dataset(root, processor, image_record(), record)
    found = data.refused or [data[1]]
    assert len(found) == 1
    assert isinstance(found[0], Refusal)
    assert found[0].index == 1
    assert found[0].path.endswith('data.json')
    with pytest.raises(ValueError, match=reason):
        raise ValueError(str(found[0]))


def test_documented_example_is_read(tmp_path: Path, processor: PixelReferProcessor) -> None:
    text = (ROOT / 'docs' / 'training_data.md').read_text(encoding='utf-8')
    records = json.loads(text.split('```json\n')[1].split('```')[0])
    (tmp_path / 'kitchen').mkdir()
    (tmp_path / 'clips' / 'pour.mp4').mkdir(parents=True)
    write_picture(tmp_path / 'kitchen' / '0007.jpg', picture(0, 480, 640))
    for number in range(31):
        write_picture(tmp_path / 'clips' / 'pour.mp4' / f'{number:02}.png', picture(1, 480, 640))
    data = dataset(tmp_path, processor, *records)
    assert [len(sample(data, place).regions.crops.grids) for place in (0, 1)] == [2, 2]


def test_data_without_any_usable_sample(root: Path, processor: PixelReferProcessor) -> None:
    with pytest.raises(DataError, match='sample 0.*there is no'):
        dataset(root, processor, image_record(image='gone.png'))
    wrong = image_record(masks=[rle(np.ones((6, 8)))] * 2)
    with pytest.raises(PixelReferError, match='none of the first 3 samples.*sample 2.*8x6'):
        dataset(root, processor, wrong, wrong, wrong).probe()
    dataset(root, processor, wrong, image_record()).probe()


def test_batch_is_each_sample_alone(
    root: Path, processor: PixelReferProcessor, model: PixelReferForConditionalGeneration
) -> None:
    data = dataset(root, processor, image_record(), video_record())
    samples = [sample(data, 0), sample(data, 1)]
    refusal = Refusal('data.json', 7, 'why')
    batch = collate([samples[0], refusal, samples[1]], pad_id=256)
    assert batch.pop('refused') == [refusal]
    assert batch['input_ids'].shape == batch['labels'].shape
    assert batch['attention_mask'].sum(1).tolist() == [len(item.input_ids) for item in samples]
    loss = AnswerLoss(model)
    with torch.inference_mode():
        together = model.encode(join_regions([item.regions for item in samples]))
        apart = torch.cat([model.encode(item.regions) for item in samples])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
        summed = 0.0
        for item in samples:
            alone = collate([item], pad_id=256)
            alone.pop('refused')
            summed += float(loss(**alone, num_items_in_batch=1)['loss'])
        found = float(loss(**batch, num_items_in_batch=1)['loss'])
        assert found == pytest.approx(summed, rel=1e-5)
        count = int((batch['labels'] != IGNORED).sum())
        assert float(loss(**batch)['loss']) == pytest.approx(summed / count, rel=1e-5)


def test_loss_is_that_of_transformers(
    root: Path, processor: PixelReferProcessor, model: PixelReferForConditionalGeneration
) -> None:
    batch = collate([sample(dataset(root, processor, image_record()))], pad_id=256)
    batch.pop('refused')
    with torch.inference_mode():
        found = AnswerLoss(model)(**batch)['loss']
        expected = model(
            batch['input_ids'],
            region_tokens=model.encode(batch['regions']),
            labels=batch['labels'],
        ).loss
    torch.testing.assert_close(found, expected)


def test_batch_of_refused_samples_teaches_nothing(
    model: PixelReferForConditionalGeneration,
) -> None:
    batch = collate([Refusal('data.json', 0, 'why')], pad_id=256)
    batch.pop('refused')
    loss = AnswerLoss(model)(**batch, num_items_in_batch=torch.tensor(0))['loss']
    loss.backward()
    assert loss.item() == 0
    assert all(
        parameter.grad is None or not parameter.grad.any() for parameter in model.parameters()
    )
    model.zero_grad()
