# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ground a question in a clip in two turns of one conversation, after ReVSeg (arXiv 2512.02835).

The first turn shows frames of the whole window, small, and asks for the frame that shows the
target best and for a description of it there. The second adds that one frame, large, and asks
for the box. An answer that cannot be used is asked for once more.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pixelrefer_ros.core.chat import Picture, Turn
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.boxes import place_box
from pixelrefer_ros.grounding.parsing import (
    Failure,
    KeyFrame,
    NotPresent,
    SaidBox,
    Unreadable,
    parse_box,
    parse_key_frame,
)
from pixelrefer_ros.grounding.pictures import choose_frames, frame_parts, resize
from pixelrefer_ros.grounding.profiles import FramesAs, fill
from pixelrefer_ros.grounding.replies import Note
from pixelrefer_ros.grounding.results import Grounding, Said, Stage, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.chat import ChatModel, Decoding, Video
    from pixelrefer_ros.core.types import Box, Frame
    from pixelrefer_ros.grounding.profiles import Profile

_log = logging.getLogger(__name__)

_PROBLEMS: Final = {
    Failure.EMPTY: 'You gave no answer.',
    Failure.NO_ANSWER: 'The answer could not be read.',
    Failure.NO_FRAME: 'The answer has no frame number.',
    Failure.NO_DESCRIPTION: 'The answer has no description of the object.',
    Failure.NO_BOX: 'The answer has no box.',
    Failure.BAD_BOX: 'The box does not have four numbers.',
}
_CUT_OFF: Final = 'The answer was cut off because it was too long.'
_DEGENERATE: Final = 'The box has no area inside the picture.'


class GroundingChain:
    """Ask a vision language model which frame shows a target, and where in it."""

    def __init__(self, model: ChatModel, profile: Profile, *, single_turn: bool = False) -> None:
        """Set whom to ask and how.

        Args:
            model: Holds the conversation.
            profile: How to ask it.
            single_turn: True asks for frame and box at once, on the small frames: what the
                two turns are measured against.

        Raises:
            PixelReferError: UNSUPPORTED when the profile wants video and the model has none;
                BAD_REQUEST when it has no prompt for a single turn, or sizes of pictures that
                the model cannot take.
        """
        if profile.frames_as == FramesAs.VIDEO and not model.shows_video:
            raise PixelReferError(
                ErrorCode.UNSUPPORTED,
                f"grounding profile '{profile.name}' shows frames as video, and model "
                f"'{model.name}' takes pictures only: set frames_as to auto or pictures",
            )
        if profile.size_multiple % model.picture_multiple:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"grounding profile '{profile.name}' makes sides of pictures multiples of "
                f"{profile.size_multiple}, and model '{model.name}' sees multiples of "
                f'{model.picture_multiple}: choose the profile made for it, or set size_multiple',
            )
        if single_turn and not profile.prompts.single:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"grounding profile '{profile.name}' has no prompts.single: add one, or ask in "
                'two turns',
            )
        self._model = model
        self._profile = profile
        self._single_turn = single_turn

    def at_once(self) -> GroundingChain:
        """Return a chain that asks the same model, in the same way, in a single turn.

        Raises:
            PixelReferError: BAD_REQUEST when its profile has no prompt for that.
        """
        return GroundingChain(self._model, self._profile, single_turn=True)

    @property
    def name(self) -> str:
        """Return the name of the model; a server may tell it late."""
        return self._model.name

    @property
    def remote(self) -> bool:
        """Return whether the model runs elsewhere."""
        return self._model.remote

    @property
    def profile(self) -> Profile:
        """Return how the model is asked."""
        return self._profile

    def trouble(self) -> str:
        """Return why the model cannot reply now; '' when it can, as far as is known."""
        return self._model.trouble()

    def ground(
        self,
        frames: Sequence[Frame],
        question: str,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Grounding:
        """Find what a question speaks of.

        Args:
            frames: The window, of one camera, stamps strictly ascending; those shown are spread
                evenly over it, fewer than the profile's when there are fewer.
            question: What to find, in words.
            should_stop: Asked at least once per frame and token; True ends the work with
                STOPPED.
            on_progress: Called with (stage, text so far), stage being 'reason' or 'ground'; the
                text begins anew with every reply.

        Returns:
            What was found. A model that answers badly or finds nothing is a status, not an
            error.

        Raises:
            PixelReferError: NO_FRAMES without frames; BAD_REQUEST for an empty question; what
                the model raises.
        """
        if not frames:
            raise PixelReferError(
                ErrorCode.NO_FRAMES, 'there are no frames in the window to look at'
            )
        if not question.strip():
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, 'the question is empty: say in words what to find'
            )
        shown = choose_frames(frames, self._profile.frames)
        run = _Run(self._model, self._profile, frames, shown, question.strip(),
                   _Stop(should_stop), on_progress)  # fmt: skip
        try:
            status = run.ask_at_once() if self._single_turn else run.ask_in_turns()
        finally:
            self._model.forget()
        if status not in (Status.OK, Status.STOPPED, Status.NOT_PRESENT):
            _log.info(
                "grounding '%s' with %s ended as %s; the model said: %s",
                run.question, self._model.name, status, [said.text for said in run.said],
            )  # fmt: skip
        return run.result(status)


class _Stop:
    """Ask whether to stop, and remember a yes."""

    def __init__(self, should_stop: Callable[[], bool] | None) -> None:
        self._should_stop = should_stop
        self._stopped = False

    def __call__(self) -> bool:
        self._stopped = self._stopped or bool(self._should_stop and self._should_stop())
        return self._stopped


@dataclass(frozen=True, slots=True)
class _Problem:
    """Say why an answer cannot be used: as a status, and in words for the model."""

    status: Status
    words: str


@dataclass(slots=True)
class _Run:
    """Hold one conversation and what it has found so far."""

    model: ChatModel
    profile: Profile
    frames: Sequence[Frame]
    shown: tuple[int, ...]
    question: str
    should_stop: _Stop
    on_progress: Callable[[str, str], None] | None
    turns: list[Turn] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    key_index: int | None = None
    description: str = ''
    box: Box | None = None

    def ask_in_turns(self) -> Status:
        """Hold the conversation of two turns."""
        profile, prompts = self.profile, self.profile.prompts
        status = self._ask(Stage.REASON, self._frame_parts(), prompts.turn1, prompts.turn1_repair,
                           profile.turn1, self._take_key_frame)  # fmt: skip
        if status != Status.OK or self.key_index is None:
            return status
        key = Picture(resize(self.frames[self.key_index].image, profile.key_size))
        return self._ask(Stage.GROUND, (key,), prompts.turn2, prompts.turn2_repair,
                         profile.turn2, self._take_key_box)  # fmt: skip

    def ask_at_once(self) -> Status:
        """Hold the conversation of one turn."""
        prompts = self.profile.prompts
        return self._ask(Stage.REASON, self._frame_parts(), prompts.single, prompts.single_repair,
                         self.profile.turn1, self._take_both)  # fmt: skip

    def result(self, status: Status) -> Grounding:
        """Return what was found."""
        key = None if self.key_index is None else self.frames[self.key_index]
        return Grounding(
            status=status,
            shown=self.shown,
            shown_stamps_ns=tuple(self.frames[i].stamp_ns for i in self.shown),
            key_index=self.key_index,
            key_stamp_ns=None if key is None else key.stamp_ns,
            description=self.description,
            box=self.box if status == Status.OK else None,
            reasoning='\n'.join(self.reasoning),
            notes=tuple(dict.fromkeys(self.notes)),
            said=tuple(self.said),
        )

    # Asking.

    def _ask(
        self,
        stage: Stage,
        parts: tuple[str | Picture | Video, ...],
        prompt: str,
        repair: str,
        decoding: Decoding,
        take: Callable[[str], _Problem | None],
    ) -> Status:
        """Ask, and once more where the answer cannot be used and the profile says how."""
        self.turns.append(Turn('user', (*parts, fill(prompt, self._values(stage)))))
        kept = len(self.notes)
        said = self._reply(stage, decoding, is_repair=False)
        if said is None:
            return Status.STOPPED
        problem = take(said.text)
        if problem is None or problem.status == Status.NOT_PRESENT or not repair:
            return problem.status if problem else Status.OK
        _log.info('grounding: %s Asking again; the model said: %s', problem.words, said.text)
        # What was irregular about an answer that is not used concerns nobody.
        del self.notes[kept:]
        words = problem.words if said.complete else _CUT_OFF
        values = {**self._values(stage), 'problem': words}
        self.turns.append(Turn('user', (fill(repair, values),)))
        said = self._reply(stage, decoding, is_repair=True)
        if said is None:
            return Status.STOPPED
        problem = take(said.text)
        return problem.status if problem else Status.OK

    def _reply(self, stage: Stage, decoding: Decoding, is_repair: bool) -> Said | None:
        """Have the model speak; return None when it was stopped before or meanwhile."""
        if self.should_stop():
            return None
        on_progress = self.on_progress
        if on_progress:
            on_progress(stage.value, '')
        began_s = time.perf_counter()
        reply = self.model.reply(
            self._conversation(),
            decoding,
            should_stop=self.should_stop,
            on_text=(lambda text: on_progress(stage.value, text)) if on_progress else None,
        )
        said = Said(
            stage, reply.text, is_repair, reply.complete, reply.tokens_in, reply.tokens_reused,
            reply.tokens_out, reply.log_prob, time.perf_counter() - began_s,
        )  # fmt: skip
        self.said.append(said)
        self.turns.append(Turn('assistant', (reply.text,)))
        return None if self.should_stop() else said

    def _conversation(self) -> tuple[Turn, ...]:
        system = self.profile.system
        return (*((Turn('system', (system,)),) if system else ()), *self.turns)

    def _frame_parts(self) -> tuple[str | Picture | Video, ...]:
        images = []
        for i in self.shown:
            if self.should_stop():  # resizing takes a while; nothing will be asked about them
                break
            images.append(resize(self.frames[i].image, self.profile.frame_size))
        return frame_parts(images, self.profile, self.model.shows_video)

    def _values(self, stage: Stage) -> dict[str, object]:
        """Return what the placeholders of the prompts stand for."""
        profile, count = self.profile, len(self.shown)
        width, height = profile.key_size if stage == Stage.GROUND else profile.frame_size
        return {
            'question': self.question,
            'description': self.description,
            'frame_count': count,
            'last_frame': count - 1,
            'duration_s': f'{count / profile.fps:g}',
            'fps': f'{profile.fps:g}',
            'absent': profile.absent,
            'width': width,
            'height': height,
        }

    # Taking answers: each keeps what it finds and returns what is wrong with the rest.

    def _take_key_frame(self, text: str) -> _Problem | None:
        answer = parse_key_frame(text, self.profile.absent)
        self.key_index, self.description, self.box = None, '', None
        # In a text without an answer and without tags thoughts cannot be told from talk.
        tagged = not {Note.NO_THINK_TAGS, Note.NO_ANSWER_TAGS} <= set(answer.notes)
        self._keep_thoughts(answer, tagged or not isinstance(answer, Unreadable))
        if isinstance(answer, Unreadable):
            return _Problem(Status.TURN1_UNPARSABLE, _PROBLEMS[answer.failure])
        if isinstance(answer, NotPresent):
            return _Problem(Status.NOT_PRESENT, '')
        if not 0 <= answer.index < len(self.shown):
            return _Problem(
                Status.FRAME_OUT_OF_RANGE,
                f'There is no frame {answer.index}: the frames are numbered 0 to '
                f'{len(self.shown) - 1}.',
            )
        self.key_index = self.shown[answer.index]
        self.description = answer.description
        return None

    def _take_key_box(self, text: str) -> _Problem | None:
        answer = parse_box(text, self.profile.absent)
        # Reasoning is not asked for here: what has no tags is talk.
        self._keep_thoughts(answer, Note.NO_THINK_TAGS not in answer.notes)
        return self._take_box(answer, self.profile.key_size)

    def _take_both(self, text: str) -> _Problem | None:
        problem = self._take_key_frame(text)
        if problem is not None:
            return problem
        answer = parse_box(text, self.profile.absent)
        self.notes += answer.notes
        return self._take_box(answer, self.profile.frame_size)

    def _take_box(
        self, answer: SaidBox | NotPresent | Unreadable, canvas: tuple[int, int]
    ) -> _Problem | None:
        if isinstance(answer, Unreadable):
            return _Problem(Status.TURN2_UNPARSABLE, _PROBLEMS[answer.failure])
        if isinstance(answer, NotPresent):
            return _Problem(Status.NOT_PRESENT, '')
        assert self.key_index is not None
        height, width = self.frames[self.key_index].image.shape[:2]
        self.box, notes = place_box(
            answer.corners, self.profile.coordinates, canvas, (width, height)
        )
        self.notes += notes
        return None if self.box else _Problem(Status.DEGENERATE_BOX, _DEGENERATE)

    def _keep_thoughts(
        self, answer: KeyFrame | SaidBox | NotPresent | Unreadable, says_why: bool
    ) -> None:
        self.notes += answer.notes
        if says_why and answer.reasoning:
            self.reasoning.append(answer.reasoning)
