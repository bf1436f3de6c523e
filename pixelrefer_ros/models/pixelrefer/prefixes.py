# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the keys and values of what prompts begin with, each beginning once.

Prompts are paths in a tree: a node holds the tokens between two forks, and, once they were read,
their keys and values, which depend on nothing but the tokens from the root to the node's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor


class Node:
    """Hold the tokens between two forks.

    Attributes:
        key: (n, 3) int64, what tells the tokens from others.
        start: Place of the first one in its prompts.
        kv: (layers, 2, heads, n, D) keys and values; None while they are not read.
    """

    __slots__ = ('children', 'key', 'kv', 'parent', 'start', 'used')

    def __init__(self, key: NDArray[np.int64], start: int, parent: Node | None) -> None:
        """Start unread and without children."""
        self.key = key
        self.start = start
        self.parent = parent
        self.children: dict[tuple[int, ...], Node] = {}
        self.kv: Tensor | None = None
        self.used = 0

    def __len__(self) -> int:
        """Return how many tokens it holds."""
        return len(self.key)

    @property
    def stop(self) -> int:
        """The place after its last token."""
        return self.start + len(self.key)


class PrefixTree:
    """Keep what was read of prompts' beginnings, what was used last the longest.

    Attributes:
        held_bytes: What keys and values take.
        max_bytes: What they may take after ``trim`` when nothing is wanted soon.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._root = Node(np.zeros((0, 3), np.int64), 0, None)
        self._now = 0

    def path(self, key: NDArray[np.int64]) -> list[Node]:
        """Return the nodes a prompt runs through, which end where it ends.

        Forks where it leaves the prompts before it, so paths got earlier may be out of date.
        Nodes no prompt ran through before are unread.

        Args:
            key: (n, 3), one row per token; equal rows for tokens that are equal to the model.
        """
        self._now += 1
        node, nodes, place = self._root, [], 0
        while place < len(key):
            first = tuple(key[place].tolist())
            child = node.children.get(first)
            if child is None:
                child = node.children[first] = Node(key[place:].copy(), place, node)
            else:
                common = _common(child.key, key[place:])
                if common < len(child):
                    self._fork(child, common)
            child.used = self._now
            nodes.append(child)
            node, place = child, child.stop
        return nodes

    def keep(self, node: Node, kv: Tensor) -> None:
        """Give an unread node its keys and values, a tensor nothing else writes to."""
        node.kv = kv
        self.held_bytes += kv.nbytes

    def trim(self, wanted: Iterable[NDArray[np.int64]] = ()) -> None:
        """Drop what is unread, and what was used longest ago until the rest fits.

        Args:
            wanted: Keys of prompts that are read soon: what was read of them stays, even where
                it does not fit.
        """
        spared = {node for key in wanted for node in self.path(key)}
        leaves = [node for node in self._all() if not node.children]
        for leaf in leaves:
            while leaf.kv is None and not leaf.children and leaf.parent is not None:
                leaf = self._drop(leaf)
        while self.held_bytes > self.max_bytes:
            leaves = [n for n in self._all() if not n.children and n not in spared]
            if not leaves:
                return
            self._drop(min(leaves, key=lambda node: node.used))

    def clear(self) -> None:
        """Drop everything."""
        self._root.children.clear()
        self.held_bytes = 0

    def _fork(self, node: Node, place: int) -> None:
        """Cut a node in two; the object stays the upper one."""
        below = Node(node.key[place:], node.start + place, node)
        below.children, below.used = node.children, node.used
        for child in below.children.values():
            child.parent = below
        node.key = node.key[:place]
        node.children = {tuple(below.key[0].tolist()): below}
        if node.kv is not None:
            # copies, so that dropping one half frees its memory
            below.kv = node.kv[..., place:, :].clone()
            node.kv = node.kv[..., :place, :].clone()

    def _drop(self, leaf: Node) -> Node:
        """Drop a leaf and return what it hung on."""
        assert leaf.parent is not None
        del leaf.parent.children[tuple(leaf.key[0].tolist())]
        if leaf.kv is not None:
            self.held_bytes -= leaf.kv.nbytes
        return leaf.parent

    def _all(self) -> Iterator[Node]:
        """Walk through all nodes but the root."""
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            waiting.extend(node.children.values())
            yield node


def _common(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """Return how many rows are equal from the start."""
    length = min(len(first), len(second))
    differ = (first[:length] != second[:length]).any(axis=1)
    return int(differ.argmax()) if differ.any() else length
