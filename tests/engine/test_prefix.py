"""The longest shared beginning, with pictures whole or not at all."""

import numpy as np

from sightline.engine.prefix import Head, shared_head
from sightline.prep.prepare import Prepared
from sightline.prep.prompt import Visual

PAD = 99


def visual(key, tokens=2, times=()):
    grid = (len(times) or 1, 2, 2 * tokens)
    return Visual(np.zeros((1, 768), np.uint8), grid, tuple(times), key)


def prompt(ids, *visuals):
    return Prepared(np.array(ids), np.zeros((3, len(ids)), np.int64), visuals)


def head(*prompts):
    return shared_head(prompts, (PAD, 98))


def test_text():
    assert head(prompt([1, 2, 3, 4]), prompt([1, 2, 5])) == Head(2, 0)
    assert head(prompt([1, 2, 3]), prompt([1, 2, 3, 4])) == Head(2, 0), "one id is always left to run"
    assert head(prompt([1, 2, 3])) == Head(2, 0)


def test_an_equal_picture_belongs_to_it_and_a_different_one_ends_it():
    ids = [1, PAD, PAD, 2, 3, 4]
    assert head(prompt(ids, visual(b"a")), prompt([*ids[:-1], 7], visual(b"a"))) == Head(5, 1)
    assert head(prompt(ids, visual(b"a")), prompt(ids, visual(b"b"))) == Head(1, 0)


def test_a_picture_is_never_split():
    assert head(prompt([1, PAD, PAD, 2], visual(b"a")), prompt([1, PAD, 5, 6], visual(b"c", 1))) == Head(1, 0)


def test_second_picture_differs():
    first = prompt([1, PAD, PAD, 2, PAD, PAD, 3], visual(b"a"), visual(b"b"))
    second = prompt([1, PAD, PAD, 2, PAD, PAD, 3], visual(b"a"), visual(b"c"))
    assert head(first, second) == Head(4, 1)
