# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read data sets of videos with expressions, as their owners publish them.

Where each fact about a layout comes from ("assumed" was read nowhere):

* MeViS: folders, file names and COCO run lengths from its owners' README
  (github.com/henghuiding/MeViS); fields ``exp``, ``anno_id`` and ``frames``, one entry per
  frame with null where an object is not seen, from public evaluators that follow theirs.
* ReVOS: file names from its owners' README (github.com/cilinyan/ReVOS-api); fields, and
  ``type_id`` 0 for referring, 1 for reasoning and 2 for neither, from their evaluation script.
  Video names hold slashes. Assumed: what type 2 is for; those expressions have no target.
* ReasonVOS: all from its owners' checking, inference and evaluation scripts
  (github.com/showlab/VideoLISA). A public converter reads its expressions as a list with
  ``exp_id``; both forms are read here.
* Ref-YouTube-VOS: folders from the data page of ReferFormer (github.com/wjn922/ReferFormer),
  which unpacks the archives of youtube-vos.org; masks are hidden for all but train.
* Ref-DAVIS17: archives from the same page: DAVIS 2017 with its unsupervised annotations, and
  the text files of Khoreva et al.; lines, encodings and three misspelt names from its
  converter. A folder it has converted to the form of Ref-YouTube-VOS is read as well.

Evaluators of all five score every frame that is annotated, and average over expressions; ReVOS
averages referring and reasoning apart, and then the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.evaluation.datasets_masks import (
    RunLengths,
    read_json,
    read_pictures,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Masks = list[NDArray[np.bool_] | None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold one expression about one video.

    Attributes:
        video: Name of the video.
        expression: Identity of the expression within the video.
        text: The expression.
        kind: 'referring', 'reasoning' or 'other' where the data set tells them apart, else ''.
        frames: Its pictures in order; they need not exist until they are read.
        load_masks: Reads the masks; None where the split hides them.
    """

    video: str
    expression: str
    text: str
    kind: str
    frames: tuple[Path, ...]
    load_masks: Callable[[], Masks] | None = None

    def masks(self) -> Masks | None:
        """Return (H, W) bool per frame, None for a frame that is not annotated.

        Where the target is not seen, or there is none, a mask is empty. None where the split
        hides the masks.

        Raises:
            PixelReferError: BAD_REQUEST, saying which file is missing or wrong.
        """
        return None if self.load_masks is None else self.load_masks()


@dataclass(frozen=True, slots=True)
class DataSet:
    """Describe a data set.

    Attributes:
        title: Its name.
        splits: The first is the one results are reported on where masks are public.
        source: Where to get it.
        layout: What its folder holds, for messages.
        read: Gives the samples of a split.
    """

    title: str
    splits: tuple[str, ...]
    source: str
    layout: str
    read: Callable[[DataSet, Path, str], Iterator[Sample]]

    def need(self, path: Path) -> Path:
        """Return a path that must exist.

        Raises:
            PixelReferError: BAD_REQUEST, saying what is missing and where to get it.
        """
        if not path.exists():
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, f'{path} is missing: a folder of {self.title} holds '
                f'{self.layout}; get it from {self.source}')
        return path


def samples(name: str, root: Path, split: str = '') -> Iterator[Sample]:
    """Iterate over the expressions of a data set; pictures and masks are read when asked for.

    Args:
        name: Key of ``DATASETS``.
        root: Its folder.
        split: One of its splits, '' for the first.

    Raises:
        PixelReferError: BAD_REQUEST when there is no such data set or split, or a file is
            missing or wrong: it says which, and where to get it.
    """
    data_set = DATASETS.get(name)
    if data_set is None:
        raise PixelReferError(ErrorCode.BAD_REQUEST, f'there is no data set {name!r}: use one of '
                              f'{", ".join(DATASETS)}')
    chosen = split or data_set.splits[0]
    if chosen not in data_set.splits:
        raise PixelReferError(ErrorCode.BAD_REQUEST, f'{data_set.title} has no split {split!r}: '
                              f'use one of {", ".join(data_set.splits)}')
    data_set.need(root)
    return data_set.read(data_set, root, chosen)


def _videos(path: Path) -> dict[str, Any]:
    """Return the videos of a file of expressions."""
    content = read_json(path)
    videos = content.get('videos') if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise PixelReferError(ErrorCode.BAD_REQUEST, f'{path} has no "videos": it is no file of '
                              'expressions; unpack the data set again')
    return videos


def _field(entry: Any, name: str, video: str, path: Path) -> Any:
    """Return a field of an expression or a video."""
    try:
        return entry[name]
    except (KeyError, TypeError, IndexError) as error:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{path} gives no {name!r} for {video}: it is of another '
            'release or data set') from error


def _frames(folder: Path, video: str, names: list[str]) -> tuple[Path, ...]:
    return tuple(folder / video / f'{name}.jpg' for name in names)


def _read_run_lengths(
    data_set: DataSet, images: Path, expressions: Path, masks: Path | None
) -> Iterator[Sample]:
    """Read expressions whose masks are in a ``mask_dict.json``: MeViS, ReVOS."""
    videos = _videos(data_set.need(expressions))
    data_set.need(images)
    lengths = None if masks is None else RunLengths(data_set.need(masks))
    kinds = {0: 'referring', 1: 'reasoning', 2: 'other'}
    for video, entry in videos.items():
        frames = _frames(images, video, _field(entry, 'frames', video, expressions))
        for key, expression in _field(entry, 'expressions', video, expressions).items():
            load = None
            if lengths is not None:
                keys = [str(k) for k in _field(expression, 'anno_id', video, expressions)]
                load = partial(_united, lengths, keys, frames, data_set)
            yield Sample(video, str(key), _field(expression, 'exp', video, expressions),
                         kinds.get(expression.get('type_id', -1), ''), frames, load)


def _united(
    lengths: RunLengths, keys: list[str], frames: tuple[Path, ...], data_set: DataSet
) -> Masks:
    return lengths.united(keys, len(frames), lambda: size_of(data_set.need(frames[0])))


def _read_mevis(data_set: DataSet, root: Path, split: str) -> Iterator[Sample]:
    folder = data_set.need(root / split)
    masks = None if split == 'valid' else folder / 'mask_dict.json'
    return _read_run_lengths(data_set, folder / 'JPEGImages', folder / 'meta_expressions.json',
                             masks)


def _read_revos(data_set: DataSet, root: Path, split: str) -> Iterator[Sample]:
    return _read_run_lengths(data_set, root / 'JPEGImages',
                             root / f'meta_expressions_{split}_.json', root / 'mask_dict.json')


def _read_youtube(data_set: DataSet, root: Path, split: str) -> Iterator[Sample]:
    """Read the form of Ref-YouTube-VOS; masks only where the split has annotations."""
    expressions = data_set.need(root / 'meta_expressions' / split / 'meta_expressions.json')
    images = data_set.need(root / split / 'JPEGImages')
    annotations = root / split / 'Annotations'
    if split == 'train':
        data_set.need(annotations)
    for video, entry in _videos(expressions).items():
        names = _field(entry, 'frames', video, expressions)
        frames = _frames(images, video, names)
        for key, expression in _field(entry, 'expressions', video, expressions).items():
            load = None
            # The hidden splits come without annotations, or at most with those of first frames.
            if 'obj_id' in expression and annotations.is_dir():
                pictures = [annotations / video / f'{name}.png' for name in names]
                load = partial(read_pictures, pictures, int(expression['obj_id']))
            yield Sample(video, str(key), _field(expression, 'exp', video, expressions), '',
                         frames, load)


# Spelt otherwise in the text files than in DAVIS.
_DAVIS_NAMES = {'clasic-car': 'classic-car', 'dog-scale': 'dogs-scale', 'motor-bike': 'motorbike'}
_DAVIS_TEXTS = (('annot1', 'utf-8'), ('annot1_full_video', 'utf-8'), ('annot2', 'latin-1'),
                ('annot2_full_video', 'latin-1'))


def _read_davis(data_set: DataSet, root: Path, split: str) -> Iterator[Sample]:
    """Read DAVIS with its text files, or what was converted to the other form.

    Two annotators wrote two expressions per object each: one from the first frame, one from the
    whole video. The expression's identity is its object and its file: '2-annot1_full_video'.
    """
    if (root / 'meta_expressions').is_dir():
        yield from _read_youtube(data_set, root, {'val': 'valid'}.get(split, split))
        return
    davis = data_set.need(root / 'DAVIS')
    listed = data_set.need(davis / 'ImageSets' / '2017' / f'{split}.txt').read_text().split()
    images = data_set.need(davis / 'JPEGImages' / '480p')
    annotations = davis / 'Annotations_unsupervised' / '480p'
    if not annotations.is_dir():
        annotations = data_set.need(davis / 'Annotations' / '480p')
    for ending, encoding in _DAVIS_TEXTS:
        path = data_set.need(root / 'davis_text_annotations' / f'Davis17_{ending}.txt')
        for line in path.read_text(encoding=encoding).splitlines():
            parts = line.split(maxsplit=2)
            if not parts:
                continue
            if len(parts) < 3 or not parts[1].isdigit():
                raise PixelReferError(
                    ErrorCode.BAD_REQUEST, f'{path} has the line {line!r}; lines are a video, a '
                    'number and an expression in quotes')
            video = _DAVIS_NAMES.get(parts[0], parts[0])
            if video not in listed:
                continue
            frames = tuple(sorted(data_set.need(images / video).glob('*.jpg')))
            pictures = [annotations / video / f'{frame.stem}.png' for frame in frames]
            yield Sample(video, f'{parts[1]}-{ending}', parts[2].strip().strip('"'), '', frames,
                         partial(read_pictures, pictures, int(parts[1])))


def _read_reasonvos(data_set: DataSet, root: Path, _split: str) -> Iterator[Sample]:
    """Read a folder of masks per object, named by source, video and object."""
    expressions = data_set.need(root / 'meta_expressions.json')
    images = data_set.need(root / 'JPEGImages')
    annotations = data_set.need(root / 'Annotations')
    for video, entry in _videos(expressions).items():
        frames = tuple(sorted(data_set.need(images / video).glob('*.jpg')))
        source = str(_field(entry, 'source', video, expressions)).lower()
        listed = _field(entry, 'expressions', video, expressions)
        pairs = listed.items() if isinstance(listed, dict) else (
            (_field(e, 'exp_id', video, expressions), e) for e in listed)
        for key, expression in pairs:
            number = _field(expression, 'obj_id', video, expressions)
            folder = annotations / f'{source}_{video}_{number}'
            yield Sample(video, str(key), _field(expression, 'exp_text', video, expressions),
                         'reasoning', frames, partial(_folder, data_set, folder, frames))


def _folder(data_set: DataSet, folder: Path, frames: tuple[Path, ...]) -> Masks:
    data_set.need(folder)
    return read_pictures([folder / f'{frame.stem}.png' for frame in frames], None)


DATASETS: dict[str, DataSet] = {
    'reasonvos': DataSet(
        'ReasonVOS', ('test',), 'https://github.com/showlab/VideoLISA (BENCHMARK.md)',
        'meta_expressions.json, JPEGImages and Annotations', _read_reasonvos),
    'revos': DataSet(
        'ReVOS', ('valid', 'train'), 'https://github.com/cilinyan/ReVOS-api',
        'JPEGImages, mask_dict.json and meta_expressions_{train,valid}_.json', _read_revos),
    'ref-davis17': DataSet(
        'Ref-DAVIS17', ('val', 'train'),
        'https://davischallenge.org/davis2017/code.html (unsupervised, 480p) and, for the text '
        'annotations, the page "Video Object Segmentation with Language Referring Expressions" '
        'of mpi-inf.mpg.de',
        'DAVIS (JPEGImages, Annotations_unsupervised, ImageSets) and davis_text_annotations',
        _read_davis),
    'ref-youtube-vos': DataSet(
        'Ref-YouTube-VOS', ('valid', 'train', 'test'), 'https://youtube-vos.org/dataset/rvos/',
        'meta_expressions/SPLIT/meta_expressions.json, SPLIT/JPEGImages and train/Annotations',
        _read_youtube),
    'mevis': DataSet(
        'MeViS', ('valid_u', 'train', 'valid'), 'https://henghuiding.github.io/MeViS/',
        'train, valid_u and valid, each with JPEGImages, meta_expressions.json and, but for '
        'valid, mask_dict.json', _read_mevis),
}
"""Data sets that can be read, by name."""
