# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Play a bag into the engine in lock-step: no ROS graph, no threads, no wall clock.

Each message goes in, then every job that is due runs, then the next message comes. The engine's
clock is the log time of the bag, so equal bags and weights give equal answers, to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.reading import Refusal
from pixelrefer_ros.bags.topics import INPUTS, Role
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import NS_PER_S, Frame, Query
from pixelrefer_ros.engine import Engine, EngineConfig
from pixelrefer_ros.engine.results import failed_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pixelrefer_ros.bags.reading import Bag, Event
    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Answer, Description, Timings, Track
    from pixelrefer_ros.engine import EngineStats
    from pixelrefer_ros.engine.grounding import Grounder


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Hold what a replay gave.

    Attributes:
        descriptions: In the order they were made.
        answers: In the order they were made.
        problems: What could not be used or failed, one line each.
        stats: The engine's counts at the end.
        frames_unreadable: Images that could not be decoded.
    """

    descriptions: tuple[Description, ...]
    answers: tuple[Answer, ...]
    problems: tuple[str, ...]
    stats: EngineStats
    frames_unreadable: int


class _BagClock:
    """Tell the log time, in seconds since the first message."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def replay(
    bag: Bag,
    describer: RegionDescriber,
    output: Path,
    *,
    config: EngineConfig | None = None,
    make_tracker: Callable[[], RegionTracker] | None = None,
    grounder: Grounder | None = None,
    copy_inputs: bool = False,
    on_result: Callable[[Description | Answer], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    measure: bool = False,
) -> ReplayResult:
    """Replay a bag and write the descriptions, answers and tracks to another.

    Every query gets one answer; one that is not whole gets its error, as from the node.

    Args:
        bag: An open bag with images.
        describer: The model.
        output: Bag to write, replaced when it is there; .mcap, .db3, or a directory.
        config: Settings of the engine; its cameras are replaced by those of the bag.
        make_tracker: Makes what follows the regions of a camera; None follows nothing, and
            writes no tracks.
        grounder: Finds what GROUND queries speak of; None refuses them.
        copy_inputs: Also copy the messages of the input topics, so that the output stands alone.
        on_result: Called with each result as it comes.
        on_event: Called with each message after it is worked off.
        measure: Put how long the model took into the results. Otherwise their timings are 0,
            and the output is the same to the byte every time.

    Raises:
        FileError: The bag has no images or is broken.
    """
    bag.require_images()
    config = replace(config or EngineConfig(), cameras=bag.cameras, record_timings=measure)
    clock = _BagClock()
    image_topics = {topic.name for topic in bag.topics if topic.role is Role.IMAGE}
    descriptions: list[Description] = []
    answers: list[Answer] = []
    problems: list[str] = []
    unreadable = 0
    log_time_ns = bag.start_ns

    with BagWriter(output, overwrite=True) as writer:
        writer.add_output_topics(tracks=make_tracker is not None)
        if copy_inputs:
            for topic, _, sent_ns, data in bag.raw(INPUTS):
                writer.write_raw(topic.name, topic.msgtype, data, sent_ns)

        def take_description(description: Description) -> None:
            description = replace(description, timings=_model_time(description.timings))
            descriptions.append(description)
            writer.description(description, log_time_ns)
            if on_result:
                on_result(description)

        def take_answer(answer: Answer) -> None:
            answer = replace(answer, timings=_model_time(answer.timings))
            answers.append(answer)
            writer.answer(answer, log_time_ns)
            if on_result:
                on_result(answer)

        def take_tracks(frame: Frame, tracks: tuple[Track, ...]) -> None:
            writer.tracks(frame, tracks, log_time_ns)

        def take_problem(topic: str, text: str) -> None:
            nonlocal unreadable
            unreadable += topic in image_topics
            problems.append(f'{topic}: {text}')

        engine = Engine(
            describer,
            config,
            on_description=take_description,
            on_answer=take_answer,
            clock=clock,
            on_problem=problems.append,
            make_tracker=make_tracker,
            grounder=grounder,
            on_tracks=take_tracks,
        )
        for event in bag.events(on_problem=take_problem):
            log_time_ns = event.log_time_ns
            clock.now_s = (log_time_ns - bag.start_ns) / NS_PER_S
            if isinstance(event.value, Refusal):
                take_answer(_refused(event.value))
            else:
                _offer(engine, event, problems)
            engine.run_until_idle()
            if on_event:
                on_event(event)
        # queries ahead of the last image have waited for nothing
        clock.now_s += 2 * config.pending_s + 1.0
        engine.run_until_idle()
        engine.stop()
        stats = engine.stats()
    return ReplayResult(
        tuple(descriptions), tuple(answers), tuple(problems), stats, unreadable
    )


def _offer(engine: Engine, event: Event, problems: list[str]) -> None:
    """Hand one message to the engine."""
    value = event.value
    if isinstance(value, Frame):
        engine.add_frame(value)
    elif isinstance(value, Query):
        engine.submit(value)
    elif isinstance(value, tuple):
        for error in engine.add_regions(value):
            if error is not None:
                problems.append(f'{event.topic}: {error}')


def _refused(refusal: Refusal) -> Answer:
    """Return the answer to a query that never reaches the engine."""
    query = refusal.query
    answer = failed_answer(query, query.camera, refusal.code, refusal.message)
    return replace(answer, frame_id=refusal.frame_id)


def _model_time(timings: Timings) -> Timings:
    """Return timings whose total is what the model took: on the bag's clock nothing lasts."""
    parts = timings.preprocess_s + timings.vision_s + timings.language_s + timings.tracking_s
    return replace(timings, total_s=parts)
