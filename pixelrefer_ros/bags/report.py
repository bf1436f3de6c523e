# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write what a run saw and said as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from pixelrefer_ros.bags.annotate import Annotator
from pixelrefer_ros.bags.pictures import BIG_PX, SMALL_PX, Pictures
from pixelrefer_ros.bags.report_found import found_part, is_found
from pixelrefer_ros.bags.summary import summarise
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Frame
from pixelrefer_ros.drawing import Palette

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.bags.pictures import Key
    from pixelrefer_ros.bags.reading import Bag
    from pixelrefer_ros.bags.story import Asked, Said, Story
    from pixelrefer_ros.bags.summary import Summary
    from pixelrefer_ros.core.types import Timings

_VIDEO_BUDGET = 1_500_000  # a larger video is linked, not put into the page
_FRAMES_OF_A_CARD = 3

_TIMING_WORDS = (
    ('queue_s', 'queue'), ('preprocess_s', 'prepare'), ('vision_s', 'vision'),
    ('language_s', 'language'), ('tracking_s', 'tracking'),
)


@dataclass(frozen=True)
class Written:
    """Say where the results of a run are; None where they were not wanted."""

    summary: Path
    report: Path | None
    videos: tuple[Path, ...]


def write_results(
    inputs: Bag,
    story: Story,
    folder: Path,
    *,
    report: bool = True,
    video: bool = True,
    frames_dropped: int | None = None,
    problems: Sequence[str] = (),
    how: str = '',
    on_frame: Callable[[], None] | None = None,
) -> Written:
    """Write summary.json, and when wanted report.html and the annotated video.

    The same bags give the same bytes.

    Args:
        inputs: The bag that was played.
        story: What was seen, asked and said.
        folder: Where to write; made when it is missing.
        report: Whether to write report.html.
        video: Whether to write annotated.mp4 (annotated_CAMERA.mp4 with several cameras).
        frames_dropped: Images that did not arrive; None to count the unreadable ones.
        problems: What went wrong, a line each; shown at the end of the page.
        how: One line about the run, shown in the header.
        on_frame: Called for every image worked off.

    Raises:
        FileError: The bag is broken.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    palette = Palette()
    for region_id in story.region_ids:
        palette(region_id)
    pictures = Pictures(story, palette)
    cards = _question_cards(story, pictures) if report else []
    regions = _region_cards(story, pictures, palette) if report else []
    annotators = {
        camera: Annotator(story, camera, folder / _video_name(camera, story.cameras), palette)
        for camera in (story.cameras if video else ())
    }
    unreadable = 0

    def count(topic: str, text: str) -> None:
        nonlocal unreadable
        unreadable += 1

    for event in inputs.events({Role.IMAGE}, count) if report or video else ():
        if isinstance(event.value, Frame):
            pictures.take(event.value)
            if event.value.camera in annotators:
                annotators[event.value.camera].add(event.value)
        if on_frame:
            on_frame()
    for annotator in annotators.values():
        annotator.close()
    videos = tuple(a.path for a in annotators.values() if a.path)
    summary = summarise(story, unreadable if frames_dropped is None else frames_dropped)
    summary.save(folder / 'summary.json')
    if not report:
        return Written(folder / 'summary.json', None, videos)
    page = _environment(palette).get_template('report.html.j2').render(
        story=story,
        summary=summary,
        tiles=_tiles(summary),
        questions=_filled(cards, pictures),
        regions=_filled(regions, pictures),
        timeline=_timeline(story),
        videos=[_embedded(path) for path in videos],
        problems=list(problems),
        how=how,
    )
    (folder / 'report.html').write_text(page, encoding='utf-8')
    return Written(folder / 'summary.json', folder / 'report.html', videos)


def _video_name(camera: str, cameras: Sequence[str]) -> str:
    if len(cameras) == 1:
        return 'annotated.mp4'
    return f'annotated_{re.sub(r"[^A-Za-z0-9_-]+", "_", camera) or "camera"}.mp4'


def _environment(palette: Palette) -> Environment:
    environment = Environment(
        loader=PackageLoader('pixelrefer_ros.bags'), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )

    def colour(region_id: str) -> str:
        return '#{:02x}{:02x}{:02x}'.format(*palette(region_id))

    def chips(text: str) -> Markup:
        """Show '{region}' in a question as the region's chip."""
        parts = re.split(r'\{([^{}]+)\}', text)
        return Markup('').join(
            Markup('<span class="chip" style="--c:{}">{}</span>').format(colour(part), part)
            if index % 2 else escape(part)
            for index, part in enumerate(parts)
        )

    environment.filters.update(colour=colour, chips=chips)
    return environment


def _spread(stamps_ns: Sequence[int]) -> list[int]:
    """Return at most three stamps spread over these, the newest last."""
    count = min(len(stamps_ns), _FRAMES_OF_A_CARD)
    if count < 2:
        return list(stamps_ns)
    last = len(stamps_ns) - 1
    return [stamps_ns[round(index * last / (count - 1))] for index in range(count)]


def _frames(
    pictures: Pictures, story: Story, camera: str, stamps_ns: Sequence[int], ids: Sequence[str]
) -> list[tuple[float, Key]]:
    """Ask for the key frames of a card: the newest large, the others small."""
    chosen = _spread(stamps_ns)
    return [
        (
            (stamp_ns - story.start_ns) / NS_PER_S,
            pictures.want(camera, stamp_ns, ids,
                          BIG_PX if index == len(chosen) - 1 else SMALL_PX),
        )
        for index, stamp_ns in enumerate(chosen)
    ]


def _question_cards(story: Story, pictures: Pictures) -> list[dict[str, Any]]:
    return [_question_card(asked, index, story, pictures)
            for index, asked in enumerate(story.asked)]


def _question_card(
    asked: Asked, index: int, story: Story, pictures: Pictures
) -> dict[str, Any]:
    query, answer = asked.query, asked.answer
    text = query.text if query else ''
    if query and not text:
        text = 'Describe ' + ' '.join(f'{{{name}}}' for name in query.region_ids)
    card: dict[str, Any] = {
        'anchor': f'q{index}',
        'name': query.query_id if query else answer.query_id if answer else '',
        'question': text or '(the question is not in the bag)',
        'right': asked.right,
        'expected': asked.expected,
        'overlap': asked.overlap,
        'kind': asked.kind,
        'text': '', 'error': 'no answer came', 'frames': [], 'ids': (), 'time_s': None,
        'found': None,
    }
    if answer is None:
        return card
    ok = answer.error_code == ErrorCode.OK
    camera = story.camera(answer.camera)
    if is_found(asked):
        card['found'] = found_part(answer, story, pictures)
    else:
        ids = answer.region_ids
        card['frames'] = _frames(pictures, story, camera, answer.frame_stamps_ns, ids)
    card.update(
        text=answer.text if ok else '',
        error='' if ok else f'{answer.error_code.name}: {answer.error_msg}',
        ids=answer.region_ids,
        time_s=(answer.stamp_ns - story.start_ns) / NS_PER_S if answer.stamp_ns else None,
        confidence=answer.confidence,
        tokens=(answer.tokens_in, answer.tokens_out),
        timings=_timings(answer.timings),
        looked=len(answer.frame_stamps_ns),
        model=answer.model,
    )
    return card


def _region_cards(
    story: Story, pictures: Pictures, palette: Palette
) -> list[dict[str, Any]]:
    cards = []
    for region_id in story.region_ids:
        said = [one for one in story.said if one.description.region_id == region_id]
        if not said:
            continue
        label = next((one.description.label for one in said if one.description.label), '')
        cards.append({
            'id': region_id,
            'label': label if label != region_id else '',
            'said': [_said_card(one, story, pictures) for one in said],
        })
    return cards


def _said_card(said: Said, story: Story, pictures: Pictures) -> dict[str, Any]:
    one = said.description
    camera = story.camera(one.camera)
    return {
        'anchor': f'd-{one.region_id}-{one.stamp_ns}',
        'text': one.text,
        'right': said.right,
        'verdicts': said.verdicts,
        'time_s': (one.stamp_ns - story.start_ns) / NS_PER_S,
        'frames': [(
            (one.stamp_ns - story.start_ns) / NS_PER_S,
            pictures.want(camera, one.stamp_ns, (one.region_id,), SMALL_PX + 100),
        )],
        'confidence': one.confidence,
        'tokens': (one.tokens_in, one.tokens_out),
        'timings': _timings(one.timings),
        'looked': len(one.frame_stamps_ns),
    }


def _filled(cards: list[dict[str, Any]], pictures: Pictures) -> list[dict[str, Any]]:
    """Put the pictures, which are there by now, in the place of their keys."""
    for card in cards:
        for part in [card, *card.get('said', [])]:
            part['frames'] = [
                (time_s, uri) for time_s, key in part.get('frames', ())
                if (uri := pictures.get(key))
            ]
        if card.get('found'):
            card['found'] = card['found'].filled(pictures)
    return cards


def _timings(timings: Timings) -> dict[str, Any] | None:
    """Return the parts of the time in ms; None when nothing was measured."""
    if not timings.total_s:
        return None
    parts = [(word, getattr(timings, name) * 1e3) for name, word in _TIMING_WORDS]
    return {
        'total': timings.total_s * 1e3,
        'parts': [(word, value) for word, value in parts if value >= 0.05],
    }


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return (figure, what it is, remark) for the head of the page."""
    questions, descriptions = str(summary.questions), str(summary.descriptions)
    remark_q, remark_d = f'{summary.answered} answered', ''
    if summary.right is not None:
        questions = f'{summary.right}/{summary.scored_questions}'
        remark_q = 'right' + (f', of {summary.questions} asked'
                              if summary.questions != summary.scored_questions else '')
    if summary.right_descriptions is not None:
        descriptions = f'{summary.right_descriptions}/{summary.scored_descriptions}'
        remark_d = 'right in every attribute'
    p50, p95 = summary.latency_ms['p50'], summary.latency_ms['p95']
    latency = '–' if p50 is None else f'{p50:.0f} ms'
    remark_l = 'not measured' if p95 is None else f'median; 95 % within {p95:.0f} ms'
    lost = f'{summary.frames_dropped} dropped' if summary.frames_dropped else 'none dropped'
    return [
        (questions, 'questions', remark_q),
        (descriptions, 'descriptions', remark_d),
        (latency, 'to the words', remark_l),
        (str(summary.frames_in), 'images', f'{lost}, over {summary.duration_s:.1f} s'),
    ]


def _timeline(story: Story) -> dict[str, Any]:
    """Return the lanes of the timeline; positions are percent of the width."""
    length_s = max(story.duration_s, 1e-3)

    def place(stamp_ns: int) -> float:
        return min(max(0.0, (stamp_ns - story.start_ns) / NS_PER_S / length_s * 100), 100.0)

    lanes = []
    for region_id in story.region_ids:
        lanes.append({
            'id': region_id,
            'spans': [
                (place(span.start_ns), max(0.6, place(span.end_ns) - place(span.start_ns)),
                 span.faint)
                for span in story.spans(region_id)
            ],
            'dots': [
                (place(s.description.stamp_ns), s.right,
                 f'd-{region_id}-{s.description.stamp_ns}', s.description.text)
                for s in story.said if s.description.region_id == region_id
            ],
        })
    questions = [
        (place(asked.answer.stamp_ns), asked.right, f'q{index}',
         asked.query.text if asked.query else asked.answer.query_id)
        for index, asked in enumerate(story.asked) if asked.answer and asked.answer.stamp_ns
    ]
    step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600) if length_s / s <= 10),
                3600)
    ticks = [(k * step / length_s * 100, f'{k * step:g} s')
             for k in range(int(length_s / step + 1e-6) + 1)]
    return {'lanes': lanes, 'questions': questions, 'ticks': ticks}


def _embedded(path: Path) -> dict[str, str]:
    """Return a video for the page: inside it when it is small, else as a link."""
    data = path.read_bytes() if path.stat().st_size <= _VIDEO_BUDGET else b''
    kind = 'video/mp4' if path.suffix == '.mp4' else 'video/x-msvideo'
    uri = f'data:{kind};base64,{base64.b64encode(data).decode()}' if data else ''
    return {'name': path.name, 'uri': uri}
