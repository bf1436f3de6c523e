# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How many operations do regions, frames and questions cost, here and in the reference?

(a) the paper's efficiency table by its own formula, (b) single prompts at the published sizes,
counted, (c) jobs of 1-64 regions, 1-20 frames and three questions each, counted for the
reference's schedule and for this package's, tower included, (d) the same for regions of one size,
(e) for more questions, (f) for the full PixelRefer.

    python -m bench.flops [--quick]
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from bench import _clip as clip
from bench import _common as common
from bench import _full as full
from bench import _paper as paper
from bench import _plan as plan
from bench import _plots as plots
from bench._counting import Counter
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZES = ('2B', '7B')
REGIONS = (1, 2, 4, 8, 16, 32, 64)
FRAMES = (1, 2, 4, 8, 16, 20)
SHOWN = (1, 8, 20, 64)
QUESTIONS = (1, 2, 3, 4, 5, 10)
TARGET = 6.0
"""Reference over ours, all questions of the job: 8 regions, 8 frames, 3 questions each."""

# (masks in one prompt, its tokens, 10^12 FLOPs of the tower, of the language model with the next
# token predicted everywhere, of all): the published 2B, measured before this package was written
MEASURED = (
    (1, 74, 1.25, 0.23, 1.48), (4, 190, 5.0, 0.59, 5.6),
    (8, 338, 10.0, 1.06, 11.1), (20, 782, 18.4, 2.5, 21.0),
)  # fmt: skip

ASSUMPTIONS = (
    'FLOPs are twice the multiply-accumulates of matrix products; the vision tower is included '
    'unless a column says otherwise.',
    f'Frames of {clip.WIDTH}x{clip.HEIGHT}; each region is seen in every frame; three pictures '
    'per mask: object crop (by the size of the mask), context crop 16x16, whole frame 24x24 '
    'patches.',
    'More than eight regions show the same things again, and are counted as if they did not.',
    'Prompts hold the 32 tokens of each mask, their times in a video, and the words of '
    f'bench/_clip.py; {plan.ANSWER_TOKENS} tokens are generated for each question.',
    'The reference: everything again for every mask and question, one region at a time; the next '
    'token is predicted at the last position of a prompt only.',
    'Ours: a frame once for all regions, crops once for all questions, of a later question what '
    'its prompt adds.',
    'The full PixelRefer: one mask per region on one frame, whole frames at their own size, no '
    'token of a frame left out.',
    'Pictures never share a pixel budget, as in this package; the reference shrinks them in calls '
    'of more than 14 masks.',
)


def measured(counter: Counter) -> list[dict[str, Any]]:
    """Count single prompts about 1-20 masks, beside what was measured before.

    Object crops and whole frames have 24x24 patches, and pictures share the pixel budget.
    """
    results = []
    for masks, tokens, tower, language, total in MEASURED:
        budget = counter.config.mm_max_length * PATCH_SIZE**2 // masks
        whole, local = (
            _grid(side, counter.config.min_pixels, budget)
            for side in (counter.config.global_size, counter.config.local_size)
        )
        pictures = masks * counter.pictures([whole, whole, local])
        read = counter.read(tokens, heads=tokens)
        encoder = counter.regions((whole,) * masks, (50,) * masks, masks, masks)
        results.append(
            {
                'masks': masks,
                'tokens': tokens,
                'tower_t': pictures / 1e12,
                'tower_before_t': tower,
                'language_t': read / 1e12,
                'language_before_t': language,
                'region_encoder_t': encoder / 1e12,
                'total_t': (pictures + read + encoder) / 1e12,
                'total_before_t': total,
            }
        )
    return results


def _grid(side: int, min_pixels: int, budget: int) -> tuple[int, int]:
    rows, columns = fitted_size(side, side, min_pixels, budget)
    return rows // PATCH_SIZE, columns // PATCH_SIZE


def compare(counter: Counter, work: plan.Job) -> dict[str, Any]:
    """Count a job both ways."""
    theirs, own = plan.reference(counter, work), plan.ours(counter, work)
    known = plan.ours(counter, work, frames_are_known=True)
    all_theirs, all_own = plan.total(theirs), plan.total(own)
    live = plan.live(counter, work)
    mostly_new = plan.live(counter, work, max(1, work.frames - 1))
    return {
        'regions': len(work.crops),
        'frames': work.frames,
        'questions': len(work.questions),
        'reference': all_theirs.as_dict(),
        'ours': all_own.as_dict(),
        'reference_one_question': theirs[0].as_dict(),
        'first_question': own[0].as_dict(),
        'second_question': own[-1].as_dict(),
        'first_question_frames_known': known[0].as_dict(),
        'one_frame_later': live.as_dict(),
        'ratio': all_theirs.total / all_own.total,
        'ratio_first_question': theirs[0].total / own[0].total,
        'ratio_second_question': theirs[0].total / own[-1].total,
        'ratio_one_frame_later': theirs[0].total / live.total,
        'ratio_all_but_one_new': theirs[0].total / mostly_new.total,
        'ratio_tower': all_theirs.tower / all_own.tower,
    }


def jobs(
    size: str, counter: Counter, regions: Sequence[int], frames: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Count the mix of regions, for each number of them and of frames."""
    for count in regions:
        for length in frames:
            work = plan.job(counter, clip.THINGS, count, length)
            yield {'model': size, 'things': 'mix'} | compare(counter, work)


def by_size(size: str, counter: Counter) -> Iterator[dict[str, Any]]:
    """Count 8 regions in 8 frames, all of one size."""
    for name, things in clip.CLASSES.items():
        work = plan.job(counter, things, 8, 8)
        patches = sum(rows * columns for rows, columns in work.crops) / len(work.crops)
        yield {'model': size, 'things': name, 'crop_patches': patches} | compare(counter, work)


def by_questions(size: str, counter: Counter) -> Iterator[dict[str, Any]]:
    """Count 8 regions in 8 frames for more and more questions each."""
    known, _ = plan.questions_of_clip(8)
    for number in QUESTIONS:
        questions = (known[0], *islice(cycle(known[1:]), number - 1))
        work = plan.job(counter, clip.THINGS, 8, 8, questions)
        yield {'model': size, 'things': 'mix'} | compare(counter, work)


def tera(bill: dict[str, int], *, tower: bool = True) -> float:
    """Return 10^12 FLOPs of a bill, with or without the tower."""
    return (bill['total'] - (0 if tower else bill['tower'])) / 1e12


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    common.show(
        "(a) the paper's table 5: 10^12 multiply-accumulates, no tower, no text",
        ['model', 'medium', 'printed', 'computed', 'with 3 MLP matrices'],
        [list(row.values()) for row in results['paper']],
        'Computed with two MLP matrices; the formula says three, as Qwen2 has them.',
    )
    common.show(
        '(b) one prompt, 2B, 10^12 FLOPs (before: what a measurement before this package gave)',
        ['masks', 'tokens', 'tower', 'before', 'language', 'before', 'regions', 'all', 'before'],
        [list(row.values()) for row in results['measured']],
        'Next token predicted at every position, object crops of 24x24 patches.',
    )
    common.show(
        '(b) the same of the full PixelRefer, 20 frames of 640x360, one region',
        ['', 'tokens', 'tower', 'language', 'all'],
        [
            ['counted', *results['measured_full'].values()],
            ['before', *(full.MEASURED[name] for name in results['measured_full'])],
        ],
    )
    for title, key in (
        ('(c) the mix of regions', 'jobs'),
        ('(d) 8 regions in 8 frames, by their size', 'by_size'),
        ('(e) 8 regions in 8 frames, by the number of questions', 'by_questions'),
    ):
        common.show(
            f'{title}, 10^12 FLOPs of all questions about each region',
            ['model', 'regions', 'frames', 'asked', 'things', 'reference', 'ours', 'ratio',
             '1st', '2nd', 'live', 'tower', 'no tower'],
            [
                [one['model'], one['regions'], one['frames'], one['questions'], one['things'],
                 tera(one['reference']), tera(one['ours']), one['ratio'],
                 one['ratio_first_question'], one['ratio_second_question'],
                 one['ratio_one_frame_later'], one['ratio_tower'],
                 tera(one['reference'], tower=False) / tera(one['ours'], tower=False)]
                for one in results[key]
                if one['regions'] in SHOWN and one['frames'] in SHOWN
            ],
            'Ratio: reference over ours; of the first and of a later question; of a description '
            'when the clip moved on by a frame; of the tower alone; of all but the tower.',
        )  # fmt: skip
    common.show(
        '(f) the full PixelRefer, 10^12 FLOPs of three questions about each region',
        ['model', 'regions', 'frames', 'tokens', 'reference', 'ours', 'ratio', '2nd'],
        [
            [one['model'], one['regions'], one['frames'], one['tokens'], tera(one['reference']),
             tera(one['ours']), one['ratio'], one['ratio_second_question']]
            for one in results['full']
            if one['regions'] in SHOWN and one['frames'] in SHOWN
        ],
    )  # fmt: skip


def main() -> None:
    """Count, print and write."""
    options = common.options('What regions, frames and questions cost, in operations.')
    about = common.machine()
    common.introduce('operations', about)
    results: dict[str, Any] = {
        'machine': about,
        'assumptions': ASSUMPTIONS,
        'paper': paper.rows(),
        'jobs': [],
        'by_size': [],
        'by_questions': [],
        'full': [],
    }
    for size in SIZES[:1] if options.quick else (*SIZES, 'mid'):
        common.say(f'{size} ...')
        counter = Counter.of(size)
        if size == '2B':
            results['measured'] = measured(counter)
            results['measured_full'] = full.measured(full.FullCounter.of(size))
        few = options.quick or size == 'mid'
        regions, frames = ((8,), (8,)) if few else (REGIONS, FRAMES)
        results['jobs'] += jobs(size, counter, regions, frames)
        results['by_size'] += by_size(size, counter)
        results['by_questions'] += by_questions(size, counter)
        whole = full.FullCounter.of(size)
        results['full'] += (
            full.compare(size, whole, count, length)
            for count in regions
            for length in frames
            if count in SHOWN and length in SHOWN
        )
    show(results)
    if not options.quick:
        common.write('flops', results)
        plots.flops(results)


if __name__ == '__main__':
    main()
