# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the tree of what prompts begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.models.pixelrefer.prefixes import PrefixTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.models.pixelrefer.prefixes import Node

PER_TOKEN = 2 * 2 * 3 * 4 * 4
"""Bytes: layers, keys and values, heads, width, float32."""


def key(text: str) -> NDArray[np.int64]:
    """Return a prompt with a letter per token."""
    return np.array([[ord(letter), 0, 0] for letter in text], np.int64).reshape(-1, 3)


def kv(text: str) -> torch.Tensor:
    """Return keys and values by which each token can be told, (2, 2, 3, n, 4)."""
    marks = torch.tensor([float(ord(letter)) for letter in text])
    return marks[:, None].expand(2, 2, 3, len(text), 4).clone()


def text_of(node: Node) -> str:
    return ''.join(map(chr, node.key[:, 0]))


def read(tree: PrefixTree, text: str) -> int:
    """Read a prompt; return how many of its tokens were unread."""
    tree.path(key(text))
    unread = [node for node in tree.path(key(text)) if node.kv is None]
    for node in unread:
        tree.keep(node, kv(text[node.start : node.stop]))
    return sum(map(len, unread))


def test_prompts_fork_where_they_differ() -> None:
    tree = PrefixTree(1 << 20)
    tree.path(key('red cup'))
    tree.path(key('red car'))
    tree.path(key('red'))
    assert [text_of(node) for node in tree.path(key('red cup'))] == ['red', ' c', 'up']
    assert [text_of(node) for node in tree.path(key('red car'))] == ['red', ' c', 'ar']
    assert [(n.start, n.stop) for n in tree.path(key('red cup'))] == [(0, 3), (3, 5), (5, 7)]
    assert tree.path(key('')) == []


def test_what_was_read_is_cut_with_its_tokens() -> None:
    tree = PrefixTree(1 << 20)
    assert read(tree, 'red cup') == 7
    assert read(tree, 'red car') == 2
    assert read(tree, 'red') == 0
    for text in ('red cup', 'red car'):
        parts = [node.kv for node in tree.path(key(text))]
        assert torch.equal(torch.cat(parts, dim=-2), kv(text))
    assert tree.held_bytes == 9 * PER_TOKEN
    owned = [node.kv for node in tree.path(key('red cup'))]
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in owned)


def test_tokens_with_one_id_and_other_contents_differ() -> None:
    tree = PrefixTree(1 << 20)
    first, second = key('abc'), key('abc')
    second[1, 1] = 5
    tree.path(first)
    assert [len(node) for node in tree.path(second)] == [1, 2]
    assert [len(node) for node in tree.path(first)] == [1, 2]


def test_trim_drops_the_unread() -> None:
    tree = PrefixTree(1 << 20)
    read(tree, 'abcdef')
    tree.path(key('abcxyz'))
    tree.path(key('new one'))
    tree.trim()
    assert read(tree, 'abcxyz') == 3
    assert read(tree, 'new one') == 7
    assert read(tree, 'abcdef') == 0


def test_trim_drops_what_was_used_longest_ago_from_its_end() -> None:
    tree = PrefixTree(12 * PER_TOKEN)
    for text in ('cup one', 'cup two', 'ball'):
        read(tree, text)
    assert tree.held_bytes == (4 + 3 + 3 + 4) * PER_TOKEN
    read(tree, 'cup one')
    tree.trim()
    assert tree.held_bytes == (4 + 3 + 4) * PER_TOKEN
    assert [read(tree, text) for text in ('cup one', 'ball', 'cup two')] == [0, 0, 3]


def test_trim_spares_what_is_read_soon() -> None:
    tree = PrefixTree(3 * PER_TOKEN)
    for text in ('ball', 'cup one', 'cup two', 'dog'):
        read(tree, text)
    tree.trim([key('cup three'), key('bar')])
    assert tree.held_bytes == (len('cup t') + len('ba')) * PER_TOKEN
    assert [read(tree, text) for text in ('cup three', 'bar')] == [4, 1]
    tree.trim()
    assert tree.held_bytes <= 3 * PER_TOKEN


def test_nothing_stays_where_nothing_may() -> None:
    tree = PrefixTree(0)
    read(tree, 'abc')
    tree.trim()
    assert tree.held_bytes == 0
    assert read(tree, 'abc') == 3
    tree.clear()
    assert tree.held_bytes == 0


@given(
    st.lists(st.text('ab', max_size=8), max_size=12),
    st.integers(0, 24),
)
def test_every_prompt_is_put_together_from_what_is_kept(texts: list[str], held: int) -> None:
    tree = PrefixTree(held * PER_TOKEN)
    for text in texts:
        read(tree, text)
        nodes = tree.path(key(text))
        assert ''.join(map(text_of, nodes)) == text
        assert [node.start for node in nodes] == [
            sum(map(len, nodes[:place])) for place in range(len(nodes))
        ]
        for node in nodes:
            assert node.kv is not None
            assert torch.equal(node.kv, kv(text_of(node)))
        tree.trim()
        assert tree.held_bytes <= tree.max_bytes
