# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How much device memory do eight regions in eight frames take at the published sizes?

With a CUDA device a run says; in any case the tensors are added up on the meta device, stage by
stage: weights in bfloat16, vision, reading, decoding, and what is kept between questions.

    python -m bench.memory [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bench import _clip as clip
from bench import _common as common
from bench import _sizes as sizes
from bench._tally import Tally
from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import Task
from pixelrefer_ros.models.pixelrefer.eyes import LiteEyes
from pixelrefer_ros.models.pixelrefer.slots import Slots, read, store_shape
from pixelrefer_ros.models.pixelrefer.steps import GROWTH, WARM_ROWS, WARM_SIZES

if TYPE_CHECKING:
    from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration

PAPER_GB = {'2B': 5.1, '7B': 17.6}
"""What the paper's Table 5 gives for one region of a video (20 frames), 10^9 bytes or 2^30."""
JOBS = ((1, 1), (1, 8), (8, 8), (8, 20))
ANSWER_TOKENS = 32


def requests(regions: int, frames: int) -> list[Request]:
    """Return one description per region of the clip."""
    pictures, clips = clip.draw(regions, frames)
    return [Request(Task.DESCRIBE, tuple(pictures), (one,)) for one in clips]


def tally(model: PixelReferForConditionalGeneration, regions: int, frames: int) -> dict[str, Any]:
    """Add up what describing regions takes, each for itself but all at once."""
    config = model.config
    asked = requests(regions, frames)
    processor = sizes.processor(config)
    eyes = LiteEyes(model, processor, resize='exact')
    with torch.inference_mode(), Tally(model) as memory:
        told = {'weights': memory.held}
        prepared = [eyes.prepare(one) for one in asked]
        longest = max(len(one.input_ids) for one in prepared)
        # on CUDA batches lie in one piece of memory, sized for the largest that was wanted
        rows = max(WARM_ROWS[-1], _power_of_2(regions))
        slots = max(WARM_SIZES[-1], _power_of_2(longest + 1 + GROWTH))
        store = torch.empty(store_shape(config, rows, slots), dtype=model.dtype, device='meta')
        told['decoding_batch'] = store.nbytes

        prompts = eyes.see(prepared)
        told['vision_peak'] = memory.peak
        told['kept_of_frames'] = eyes.stats().held_bytes
        del prepared, prompts

        memory.peak = memory.held
        embeds = torch.empty(
            regions, longest, config.hidden_size, dtype=model.dtype, device='meta'
        )
        batch = Slots(store[:, :, :regions])
        positions = torch.empty(regions, longest, dtype=torch.int64, device='meta')
        states = read(model.model, batch, embeds, positions, longest)
        kept = [batch.take(row, 0, longest) for row in range(regions)]
        model.lm_head(states[:, -1]).float()
        told['reading_peak'] = memory.peak
        told['kept_of_prompts'] = sum(one.nbytes for one in kept)

        del states, embeds, positions
        memory.peak = memory.held
        token = torch.empty(regions, 1, config.hidden_size, dtype=model.dtype, device='meta')
        place = torch.empty(regions, 1, dtype=torch.int64, device='meta')
        states = read(model.model, batch, token, place, slots)
        model.lm_head(states[:, -1]).float().logsumexp(dim=-1)
        told['decoding_peak'] = memory.peak
    told['peak'] = max(value for key, value in told.items() if key.endswith('_peak'))
    return told


def _power_of_2(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


def run(model: PixelReferForConditionalGeneration, regions: int, frames: int) -> dict[str, Any]:
    """Describe on CUDA, and say what torch took and what it reserved."""
    torch.cuda.reset_peak_memory_stats()
    describer = sizes.describer(model, sizes.processor(model.config), ANSWER_TOKENS)
    failed: list[Exception] = []
    describer.say(
        requests(regions, frames),
        lambda _, said: failed.append(said) if isinstance(said, Exception) else None,
    )
    if failed:
        raise failed[0]
    return {
        'peak': torch.cuda.max_memory_allocated(),
        'reserved': torch.cuda.max_memory_reserved(),
    }


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    columns = ('weights', 'vision_peak', 'reading_peak', 'decoding_peak', 'decoding_batch',
               'kept_of_frames', 'kept_of_prompts', 'peak')  # fmt: skip
    common.show(
        '10^9 bytes on the device, bfloat16, everything asked at once',
        ['model', 'regions', 'frames', *(name.replace('_', ' ') for name in columns), 'paper'],
        [
            [one['model'], one['regions'], one['frames'],
             *(one['tally'][name] / 1e9 for name in columns), PAPER_GB[one['model']]]
            for one in results['jobs']
        ],
        'Added up on the meta device; a peak includes the weights and all that is kept. '
        'Paper: one region of a video.',
    )  # fmt: skip
    measured = [one for one in results['jobs'] if 'cuda' in one]
    if measured:
        common.show(
            f'measured on {results["device"]}, 10^9 bytes',
            ['model', 'regions', 'frames', 'peak', 'reserved'],
            [
                [one['model'], one['regions'], one['frames'],
                 one['cuda']['peak'] / 1e9, one['cuda']['reserved'] / 1e9]
                for one in measured
            ],
        )  # fmt: skip
    else:
        common.say('no CUDA device: not measured on a GPU')


def main() -> None:
    """Add up, measure, print and write."""
    options = common.options('What regions and frames take of device memory.')
    about = common.machine()
    common.introduce('memory', about)
    cuda = torch.cuda.is_available()
    results: dict[str, Any] = {
        'machine': about,
        'device': torch.cuda.get_device_name() if cuda else None,
        'jobs': [],
    }
    for size in ('2B',) if options.quick else ('2B', '7B'):
        common.say(f'{size} ...')
        shapes = sizes.meta_model(size).to(torch.bfloat16)
        model = None
        if cuda:
            model = sizes.random_model(sizes.config(size), 'cuda', torch.bfloat16)
        for regions, frames in JOBS[1:2] if options.quick else JOBS:
            job: dict[str, Any] = {
                'model': size,
                'regions': regions,
                'frames': frames,
                'tally': tally(shapes, regions, frames),
            }
            if model is not None:
                job['cuda'] = run(model, regions, frames)
            results['jobs'].append(job)
        del model
    show(results)
    if not options.quick:
        common.write('memory', results)


if __name__ == '__main__':
    main()
