"""Symbolic tasks that make themselves, with the steps that lead to each answer: what reasoning can be measured on.

Every row has ``input``, ``output`` and ``rationale``. The tasks follow the symbolic ones of Wei et al. 2022 (arXiv
2201.11903, appendix) in kind, shortened so that a small model has a chance; words and names are common ones written
down here.
Invariant: the rationale's last sentence holds the answer, and equal seeds make equal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

import numpy as np

__all__ = ["TASKS", "make_rows"]

_NAMES = (
    *("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate", "Liam", "Mia"),
    *("Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor"),
)
_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink", "grey", "purple")
_THINGS = ("key", "coin", "book", "ring", "ball", "cup", "lamp", "pen", "shell", "stone", "map", "bell")
_FRUITS = ("apple", "pear", "plum", "lemon", "peach")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)

_TRIES = 50  # for each row wanted

Row = dict[str, str]
Maker = Callable[[np.random.Generator], Row]


def _picked(rng: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    return [words[place] for place in rng.permutation(len(words))[:count]]


def last_letters(rng: np.random.Generator) -> Row:
    """The last letters of three names, put together."""
    names = _picked(rng, _NAMES, 3)
    letters = "".join(name[-1] for name in names)
    steps = " ".join(f"{name} ends in {name[-1]}." for name in names)
    return {
        "input": f"What are the last letters of {' '.join(names)}, put together?",
        "output": letters,
        "rationale": f"{steps} Together: {letters}",
    }


def coin_flip(rng: np.random.Generator) -> Row:
    """Whether a coin is still heads up after some people flipped it and others did not."""
    names = _picked(rng, _NAMES, 3)
    flips = rng.integers(2, size=3).astype(bool).tolist()
    heads, steps, told = True, [], []
    for name, flip in zip(names, flips, strict=True):
        heads = heads != flip
        told.append(f"{name} {'flips' if flip else 'does not flip'} the coin.")
        steps.append(f"{name} {'flips' if flip else 'does not flip'}: {'heads' if heads else 'tails'}.")
    answer = "heads" if heads else "tails"
    return {"input": f"A coin is heads up. {' '.join(told)}", "output": answer, "rationale": " ".join(steps)}


def counting(rng: np.random.Generator) -> Row:
    """How often one fruit stands in a list."""
    fruits = [_FRUITS[place] for place in rng.integers(3, size=int(rng.integers(5, 9)))]
    wanted = fruits[int(rng.integers(len(fruits)))]
    count, steps = 0, []
    for fruit in fruits:
        count += fruit == wanted
        steps.append(f"{fruit} {count}")
    return {
        "input": f"List: {', '.join(fruits)}. How many times does the list say {wanted}?",
        "output": str(count),
        "rationale": f"{', '.join(steps)}. So {count}",
    }


def date_shift(rng: np.random.Generator) -> Row:
    """A date some days later."""
    start = date(2021, 1, 1) + timedelta(days=int(rng.integers(365)))
    days = int(rng.integers(1, 10))
    end = start + timedelta(days=days)

    def said(day: date) -> str:
        return f"{_MONTHS[day.month - 1]} {day.day}"

    passed = [said(start + timedelta(days=step)) for step in range(1, days + 1)]
    return {
        "input": f"Today is {said(start)}. What date is it in {days} days?",
        "output": said(end),
        "rationale": f"The next days are {', '.join(passed)}. So {said(end)}",
    }


def two_hops(rng: np.random.Generator) -> Row:
    """Whose box holds what: from a name to a colour, and from the colour to a thing."""
    names, colours, things = _picked(rng, _NAMES, 4), _picked(rng, _COLOURS, 4), _picked(rng, _THINGS, 4)
    first = [f"{name} has the {colour} box." for name, colour in zip(names, colours, strict=True)]
    second = [f"The {colour} box holds a {thing}." for colour, thing in zip(colours, things, strict=True)]
    told = [first[place] for place in rng.permutation(4)] + [second[place] for place in rng.permutation(4)]
    asked = int(rng.integers(4))
    return {
        "input": f"{' '.join(told)} What does {names[asked]} have in the box?",
        "output": things[asked],
        "rationale": f"{first[asked]} {second[asked]}",
    }


def lookup(rng: np.random.Generator) -> Row:
    """A sum of two prices in a table."""
    things = _picked(rng, _THINGS, 4)
    prices = [int(price) for price in rng.integers(1, 6, size=4)]
    told = ", ".join(f"{thing} {price}" for thing, price in zip(things, prices, strict=True))
    one, other = (int(place) for place in rng.permutation(4)[:2])
    total = prices[one] + prices[other]
    return {
        "input": f"Prices: {told}. What do a {things[one]} and a {things[other]} cost together?",
        "output": str(total),
        "rationale": f"{things[one]} {prices[one]}, {things[other]} {prices[other]}. "
        f"{prices[one]} + {prices[other]} = {total}",
    }


TASKS: Mapping[str, Maker] = {
    "last_letters": last_letters,
    "coin_flip": coin_flip,
    "counting": counting,
    "date_shift": date_shift,
    "two_hops": two_hops,
    "lookup": lookup,
}


def make_rows(name: str, count: int, seed: int) -> list[Row]:
    """So many different rows of a task.

    Raises:
        KeyError: no such task.
        ValueError: it has fewer different rows.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    found: dict[str, Row] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            return list(found.values())
        row = TASKS[name](rng)
        found.setdefault(row["input"], row)
    raise ValueError(f"{name} has no {count} different rows, {len(found)} were found; ask for fewer")
