# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep what was seen of frames on the device, within a number of bytes, while the frames live."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pixelrefer_ros.core.describer import VisionStats

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    _Key = tuple[int, Hashable]


class Kept(Protocol):
    """Be a tensor, or something made of some."""

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        ...


@dataclass
class _Shelf:
    """Hold the names of what is kept of one picture, and a reference that does not hold it."""

    image: weakref.ref[NDArray[np.uint8]]
    names: set[Hashable] = field(default_factory=set)


class FeatureCache:
    """Keep tensors made from pictures; those not used for the longest time go first.

    What is cheap to make again, as an uploaded picture is beside its features, goes before all
    else, and never drives anything else out.

    An entry belongs to the array a frame holds its pixels in, not to its camera and stamp: a
    bag that starts over, or a second clip, brings other pictures with the same stamps. The
    array is known by its identity and held weakly, so that entries go when their frame has left
    the buffer: at the next call of any method, never at a moment of the interpreter's choosing
    while another thread is in here.

    One thread may use it and any thread may ask for the counts.

    Attributes:
        max_bytes: What the tensors may take together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Kept] = OrderedDict()
        self._cheap: OrderedDict[_Key, None] = OrderedDict()
        self._shelves: dict[int, _Shelf] = {}
        self._gone: deque[int] = deque()
        self._held_bytes = 0
        self._hits = self._misses = self._ahead = 0

    def get(self, image: NDArray[np.uint8], name: Hashable) -> Any:
        """Return what is kept of a picture under a name; None when it is not there."""
        with self._lock:
            self._sweep()
            shelf = self._shelves.get(id(image))
            if shelf is None or shelf.image() is not image or name not in shelf.names:
                return None
            for order in (self._kept, self._cheap):
                if (id(image), name) in order:
                    order.move_to_end((id(image), name))
            return self._kept[id(image), name]

    def put(
        self, image: NDArray[np.uint8], name: Hashable, tensor: Kept, *, cheap: bool = False
    ) -> None:
        """Keep a tensor of a picture under a name, and let go of what is too much then.

        Args:
            image: The frame's own array.
            name: Says what of the picture it is.
            tensor: What is kept. It owns its memory: a view would keep all of what it looks at
                alive.
            cheap: Whether it is soon made again.
        """
        number = id(image)
        with self._lock:
            self._sweep()
            self._drop(number, name)
            if tensor.nbytes > self.max_bytes:
                return
            while self._held_bytes + tensor.nbytes > self.max_bytes:
                if cheap and not self._cheap:
                    return
                self._drop(*next(iter(self._cheap or self._kept)))
            if number not in self._shelves:
                gone = self._gone
                self._shelves[number] = _Shelf(weakref.ref(image, lambda _: gone.append(number)))
            self._shelves[number].names.add(name)
            self._kept[number, name] = tensor
            if cheap:
                self._cheap[number, name] = None
            self._held_bytes += tensor.nbytes

    def forget(self) -> None:
        """Drop everything; the counts stay."""
        with self._lock:
            self._kept.clear()
            self._cheap.clear()
            self._shelves.clear()
            self._gone.clear()
            self._held_bytes = 0

    def count(self, *, hits: int = 0, misses: int = 0, ahead: int = 0) -> None:
        """Add to the counts of pictures."""
        with self._lock:
            self._hits += hits
            self._misses += misses
            self._ahead += ahead

    def stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        with self._lock:
            self._sweep()
            return VisionStats(
                hits=self._hits,
                misses=self._misses,
                encoded_ahead=self._ahead,
                held_bytes=self._held_bytes,
                max_bytes=self.max_bytes,
            )

    def _sweep(self) -> None:
        """Drop what was kept of pictures that are gone.

        A number is in ``_gone`` before its memory, and with it the number, can be given to
        another picture; so it is swept before that picture can be put here.
        """
        while self._gone:
            number = self._gone.popleft()
            for name in list(self._shelves[number].names) if number in self._shelves else ():
                self._drop(number, name)

    def _drop(self, number: int, name: Hashable) -> None:
        """Drop one entry, where it is there."""
        tensor = self._kept.pop((number, name), None)
        if tensor is None:
            return
        self._cheap.pop((number, name), None)
        self._held_bytes -= tensor.nbytes
        shelf = self._shelves[number]
        shelf.names.discard(name)
        if not shelf.names:
            del self._shelves[number]
