# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read small folders laid out as the published data sets are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pixelrefer_ros.core.masks import encode
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.evaluation.datasets import DATASETS, samples

if TYPE_CHECKING:
    from pathlib import Path

H, W = 20, 30
FRAMES = ('00000', '00005', '00010')


def block(left: int, width: int = 6) -> np.ndarray:
    mask = np.zeros((H, W), np.bool_)
    mask[4:12, left : left + width] = True
    return mask


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {'size': [H, W], 'counts': list(encode(mask).counts)}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def palette(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8)).convert('P')
    image.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87] + [0] * 759)
    image.putdata(numbers.astype(np.uint8).ravel().tolist())
    image.save(path)


@pytest.fixture
def mevis(tmp_path: Path) -> Path:
    for split in ('valid_u', 'valid'):
        hidden = split == 'valid'
        for frame in FRAMES:
            picture(tmp_path / split / 'JPEGImages' / 'cows' / f'{frame}.jpg')
        expressions: dict[str, Any] = {
            '0': {'exp': 'the cow that walks away', 'obj_id': [1], 'anno_id': [7]},
            '1': {'exp': 'both cows', 'obj_id': [1, 2], 'anno_id': [7, 8]},
            '2': {'exp': 'the flying cow', 'obj_id': [], 'anno_id': []},
        }
        if hidden:
            expressions = {k: {'exp': v['exp']} for k, v in expressions.items()}
        write(tmp_path / split / 'meta_expressions.json', {'videos': {'cows': {
            'vid_id': 0, 'frames': list(FRAMES), 'expressions': expressions}}})
    write(tmp_path / 'valid_u' / 'mask_dict.json', {
        '7': [rle(block(2)), None, rle(block(4))],
        '8': [rle(block(20)), rle(block(20)), None]})
    return tmp_path


def test_mevis_unites_the_objects_of_an_expression(mevis: Path) -> None:
    found = list(samples('mevis', mevis))
    assert [(s.video, s.expression, s.text) for s in found] == [
        ('cows', '0', 'the cow that walks away'), ('cows', '1', 'both cows'),
        ('cows', '2', 'the flying cow')]
    assert [f.name for f in found[0].frames] == ['00000.jpg', '00005.jpg', '00010.jpg']
    assert all(f.exists() for f in found[0].frames)
    one, both, none = (s.masks() for s in found)
    np.testing.assert_array_equal(one, [block(2), np.zeros((H, W)), block(4)])
    np.testing.assert_array_equal(both, [block(2) | block(20), block(20), block(4)])
    np.testing.assert_array_equal(none, np.zeros((3, H, W)))


def test_mevis_hides_the_masks_of_its_validation_split(mevis: Path) -> None:
    found = list(samples('mevis', mevis, 'valid'))
    assert [s.text for s in found] == ['the cow that walks away', 'both cows', 'the flying cow']
    assert [s.masks() for s in found] == [None] * 3


def test_masks_are_read_when_they_are_asked_for(mevis: Path) -> None:
    (mevis / 'valid_u' / 'mask_dict.json').write_text('not read before')
    found = list(samples('mevis', mevis))
    with pytest.raises(PixelReferError, match=r'mask_dict\.json is no JSON') as error:
        found[0].masks()
    assert error.value.code is ErrorCode.BAD_REQUEST


def test_masks_of_another_release_are_refused(mevis: Path) -> None:
    write(mevis / 'valid_u' / 'mask_dict.json', {'7': [rle(block(2))] * 2})
    first, second, _ = samples('mevis', mevis)
    with pytest.raises(PixelReferError, match='has 2 masks for annotation 7'):
        first.masks()
    write(mevis / 'valid_u' / 'mask_dict.json', {'7': [rle(block(2))] * 3})
    _, second, _ = samples('mevis', mevis)
    with pytest.raises(PixelReferError, match='has nothing for annotation 8'):
        second.masks()
    write(mevis / 'valid_u' / 'mask_dict.json', {'7': [{'points': []}] * 3})
    first, *_ = samples('mevis', mevis)
    with pytest.raises(PixelReferError, match='size and counts'):
        first.masks()


def test_compressed_run_lengths_are_read(mevis: Path) -> None:
    coco = pytest.importorskip('pycocotools.mask', reason='reads compressed run lengths')
    rng = np.random.default_rng(0)
    masks = [rng.random((H, W)) < 0.4 for _ in range(3)]
    write(mevis / 'valid_u' / 'mask_dict.json', {'7': [
        {'size': [H, W], 'counts': coco.encode(np.asfortranarray(m, np.uint8))['counts'].decode()}
        for m in masks]})
    first, *_ = samples('mevis', mevis)
    np.testing.assert_array_equal(first.masks(), masks)


def test_without_the_library_compressed_masks_say_what_to_install(
    mevis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    write(mevis / 'valid_u' / 'mask_dict.json', {'7': [{'size': [H, W], 'counts': 'PPYo0'}] * 3})
    first, *_ = samples('mevis', mevis)
    with pytest.raises(PixelReferError, match='pip install pycocotools'):
        first.masks()


def test_revos_tells_kinds_apart_and_has_slashes_in_names(tmp_path: Path) -> None:
    video = 'UVO/all/a-b_c'
    for frame in FRAMES:
        picture(tmp_path / 'JPEGImages' / video / f'{frame}.jpg')
    write(tmp_path / 'meta_expressions_valid_.json', {'videos': {video: {
        'frames': list(FRAMES), 'expressions': {
            '0': {'exp': 'a dog', 'type_id': 0, 'obj_id': [1], 'anno_id': [3]},
            '1': {'exp': 'who is hungry?', 'type_id': 1, 'obj_id': [1], 'anno_id': [3]},
            '2': {'exp': 'the unicorn', 'type_id': 2, 'obj_id': [], 'anno_id': []}}}}})
    write(tmp_path / 'mask_dict.json', {'3': [rle(block(1)), rle(block(2)), None]})
    found = list(samples('revos', tmp_path))
    assert [s.kind for s in found] == ['referring', 'reasoning', 'other']
    assert found[0].frames[1] == tmp_path / 'JPEGImages' / 'UVO/all/a-b_c' / '00005.jpg'
    np.testing.assert_array_equal(found[1].masks(), [block(1), block(2), np.zeros((H, W))])
    assert not np.any(found[2].masks())


def youtube(root: Path, split: str, masks: bool) -> None:
    for i, frame in enumerate(FRAMES):
        picture(root / split / 'JPEGImages' / '003234408d' / f'{frame}.jpg')
        if masks:
            palette(root / split / 'Annotations' / '003234408d' / f'{frame}.png',
                    block(2 + i) + 2 * block(20))
    expressions = {'0': {'exp': 'a penguin on the left', 'obj_id': '1'},
                   '1': {'exp': 'a penguin on the right', 'obj_id': '2'}}
    if not masks:
        expressions = {k: {'exp': v['exp']} for k, v in expressions.items()}
    write(root / 'meta_expressions' / split / 'meta_expressions.json', {'videos': {
        '003234408d': {'expressions': expressions, 'frames': list(FRAMES)}}})


def test_ref_youtube_vos_reads_palettes_in_train_and_nothing_in_valid(tmp_path: Path) -> None:
    youtube(tmp_path, 'train', True)
    youtube(tmp_path, 'valid', False)
    left, right = samples('ref-youtube-vos', tmp_path, 'train')
    np.testing.assert_array_equal(left.masks(), [block(2), block(3), block(4)])
    np.testing.assert_array_equal(right.masks(), [block(20)] * 3)
    hidden = list(samples('ref-youtube-vos', tmp_path))
    assert [s.text for s in hidden] == ['a penguin on the left', 'a penguin on the right']
    assert all(s.masks() is None for s in hidden)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / 'DAVIS'
    lists = root / 'ImageSets' / '2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('dogs-scale\nlab-coat\n')
    (lists / 'train.txt').write_text('bear\n')
    for video in ('dogs-scale', 'lab-coat'):
        for i in range(3):
            picture(root / 'JPEGImages' / '480p' / video / f'{i:05d}.jpg')
            for form, shift in (('Annotations_unsupervised', 0), ('Annotations', 5)):
                palette(root / form / '480p' / video / f'{i:05d}.png',
                        block(1 + shift) + 2 * block(20))
    texts = tmp_path / 'davis_text_annotations'
    texts.mkdir()
    for name in ('annot1', 'annot1_full_video', 'annot2', 'annot2_full_video'):
        lines = [f'dog-scale 1 "a dog of {name}"', 'lab-coat 2 "the coat, caf\xe9 brown"',
                 'bear 1 "a bear"', '']
        (texts / f'Davis17_{name}.txt').write_text(
            '\n'.join(lines), 'latin-1' if 'annot2' in name else 'utf-8')
    return tmp_path


def test_ref_davis_reads_both_annotators(davis: Path) -> None:
    found = list(samples('ref-davis17', davis))
    assert len(found) == 8  # two videos of the split, four expressions each
    assert {s.video for s in found} == {'dogs-scale', 'lab-coat'}
    assert found[0].text == 'a dog of annot1'
    assert found[0].expression == '1-annot1'
    assert [s.text for s in found if s.video == 'lab-coat'] == ['the coat, caf\xe9 brown'] * 4
    assert len({(s.video, s.expression) for s in found}) == 8
    assert [f.name for f in found[0].frames] == ['00000.jpg', '00001.jpg', '00002.jpg']
    np.testing.assert_array_equal(found[0].masks(), [block(1)] * 3)
    np.testing.assert_array_equal(found[1].masks(), [block(20)] * 3)


def test_ref_davis_takes_the_other_annotations_when_there_are_no_unsupervised(
    davis: Path
) -> None:
    (davis / 'DAVIS' / 'Annotations_unsupervised').rename(davis / 'away')
    np.testing.assert_array_equal(next(samples('ref-davis17', davis)).masks(), [block(6)] * 3)


def test_ref_davis_says_which_line_is_wrong(davis: Path) -> None:
    path = davis / 'davis_text_annotations' / 'Davis17_annot2.txt'
    path.write_text('dogs-scale "no number"\n')
    with pytest.raises(PixelReferError, match=r'Davis17_annot2\.txt has the line'):
        list(samples('ref-davis17', davis))


def test_converted_ref_davis_is_read_with_its_masks(tmp_path: Path) -> None:
    youtube(tmp_path, 'valid', True)
    left, right = samples('ref-davis17', tmp_path, 'val')
    np.testing.assert_array_equal(left.masks(), [block(2), block(3), block(4)])
    np.testing.assert_array_equal(right.masks(), [block(20)] * 3)


@pytest.mark.parametrize('as_list', [False, True])
def test_reasonvos_finds_masks_by_source_video_and_object(tmp_path: Path, as_list: bool) -> None:
    for i in range(3):
        picture(tmp_path / 'JPEGImages' / 'v1' / f'{i:05d}.jpg')
    folder = tmp_path / 'Annotations' / 'mose_v1_4'
    folder.mkdir(parents=True)
    for i in range(2):  # the last frame is not annotated
        Image.fromarray(block(3 + i).astype(np.uint8) * 255).save(folder / f'{i:05d}.png')
    entry = {'exp_text': 'which animal could fly away?', 'obj_id': 4}
    expressions = [{'exp_id': 0, **entry}] if as_list else {'0': entry}
    write(tmp_path / 'meta_expressions.json', {'videos': {'v1': {
        'source': 'MOSE', 'frames': ['00000', '00001', '00002'], 'is_sent': True,
        'expressions': expressions}}})
    sample, = samples('reasonvos', tmp_path)
    assert (sample.expression, sample.kind) == ('0', 'reasoning')
    assert sample.text == 'which animal could fly away?'
    masks = sample.masks()
    assert masks is not None
    np.testing.assert_array_equal(masks[:2], [block(3), block(4)])
    assert masks[2] is None
    folder.rename(tmp_path / 'Annotations' / 'away')
    with pytest.raises(PixelReferError, match='mose_v1_4 is missing'):
        sample.masks()


@pytest.mark.parametrize('name', list(DATASETS))
def test_what_is_missing_is_named_with_its_source(name: str, tmp_path: Path) -> None:
    for root in (tmp_path / 'nowhere', tmp_path):
        with pytest.raises(PixelReferError) as error:
            list(samples(name, root))
        assert error.value.code is ErrorCode.BAD_REQUEST
        assert 'is missing' in str(error.value)
        assert DATASETS[name].source in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_names_and_splits_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelReferError, match="no data set 'coco': use one of reasonvos, revos"):
        samples('coco', tmp_path)
    with pytest.raises(PixelReferError, match="MeViS has no split 'test'"):
        samples('mevis', tmp_path, 'test')


def test_files_of_another_kind_are_refused(mevis: Path, tmp_path: Path) -> None:
    path = mevis / 'valid_u' / 'meta_expressions.json'
    write(path, [1, 2])
    with pytest.raises(PixelReferError, match='has no "videos"'):
        list(samples('mevis', mevis))
    write(path, {'videos': {'cows': {'expressions': {}}}})
    with pytest.raises(PixelReferError, match="gives no 'frames' for cows"):
        list(samples('mevis', mevis))
    youtube(tmp_path / 'yt', 'train', True)
    mask = tmp_path / 'yt' / 'train' / 'Annotations' / '003234408d' / '00000.png'
    picture(mask)
    with pytest.raises(PixelReferError, match='of mode RGB'):
        next(samples('ref-youtube-vos', tmp_path / 'yt', 'train')).masks()
    mask.write_bytes(b'nothing')
    with pytest.raises(PixelReferError, match='is no picture'):
        next(samples('ref-youtube-vos', tmp_path / 'yt', 'train')).masks()
