"""What an answer says: the form in which two are compared, and the number in one.

Invariant: the form of a form is itself, and every text has one, in a time that grows with its length alone.
It leaves out what an answer is worth; see :mod:`promptsearch.metrics`.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata

from promptsearch.data.text import MEANINGFUL_PUNCTUATION, clean_text

__all__ = ["answer_text", "is_number", "number_in"]

_ARTICLES = frozenset(("a", "an", "the"))
_SIGNS = (MEANINGFUL_PUNCTUATION | frozenset("+<>=^")) - frozenset("%")
_MARKS = frozenset("-.,:")  # which stay before a digit
_WIDE = {ord(character) + 0xFEE0: character for character in string.punctuation}  # as East Asian texts have them

_BEFORE_DIGITS = re.compile(r"[-.,:]+")
_THOUSANDS = re.compile(r"(?<!\d)(?<!\d[.,])(?!0)\d{1,3}(?:,\d{3})+(?!,?\d)")
_AMOUNT = re.compile(r"[€£¥]?\d")
_STARS = re.compile(r"\*+")
_LOOSE_HASHES = re.compile(r"(?<!\w)#+")
_SPACED_SIGN = re.compile(r"(?<=\S)\s+([+<>=^&/@\\]+)\s+(?=\S)")
_LEADING_SIGNS = re.compile(r"^\s*(?:[>+]+\s+)+")


def answer_text(text: str) -> str:
    """The form in which answers are compared, after SQuAD's: no case, punctuation, articles or extra whitespace.

    Punctuation stays where it changes the meaning: a point or minus directly before a digit, a comma or colon between
    digits, and the signs + < > = ^ & / @ and the backslash, blanks on both sides of which go: "3.5" is not "35", "-5"
    is not "5", "10:30" is not "1030", "x > 3" is "x>3", "C++" is not "C". What sets thousands apart goes, as do "$",
    "%", hyphens within words, and the marks of Markdown. A text that consists only of what would go keeps itself.
    Applying it twice changes nothing.
    """
    lowered = clean_text(text).lower()
    words = [word for word in _without_punctuation(lowered).split() if word not in _ARTICLES]
    return " ".join(words) or " ".join(lowered.split())


def _without_punctuation(text: str) -> str:
    """Each step leaves to those after it only what none of them takes away, so that a second time changes nothing."""
    kept = "".join(filter(None, map(_kept_character, text.translate(_WIDE))))
    kept = _LOOSE_HASHES.sub("", _STARS.sub(_kept_stars, kept))
    kept = _BEFORE_DIGITS.sub(_kept_marks, kept)
    kept = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), kept)
    return _SPACED_SIGN.sub(r"\1", _LEADING_SIGNS.sub("", kept))


def _kept_character(character: str) -> str:
    """A character that may stay, each dash as the same one; else nothing."""
    if character in _SIGNS or character in _MARKS:
        return character
    category = unicodedata.category(character)
    if category == "Pd" or character == "−":
        return "-"
    return "" if category[0] == "P" or character in string.punctuation else character


def _kept_stars(found: re.Match[str]) -> str:
    """Those that stand between two words, as a product or a power has them."""
    before, after = _around(found)
    return found[0] if re.match(r"\w\w", before + after) else ""


def _kept_marks(found: re.Match[str]) -> str:
    """Decimal point and minus before a digit, but after no letter; comma and colon between two digits."""
    before, after = _around(found)
    if before.islower() or not _AMOUNT.match(found.string, found.end()):
        return ""
    last = found[0][-1]
    if last in ",:":
        return last if before.isdecimal() and after.isdecimal() else ""
    if last == "-":
        return "-"
    is_point = after.isdecimal() and not found[0].endswith("..")
    return ("-." if found[0].endswith("-.") else ".") if is_point else ""


def _around(found: re.Match[str]) -> tuple[str, str]:
    """The characters before and after, or nothing at an end."""
    return found.string[max(0, found.start() - 1) : found.start()], found.string[found.end() : found.end() + 1]


# A sign counts only where it cannot be a minus between two numbers. Where digits and commas are neither groups of
# thousands nor one decimal comma, they are a list. A list is gone through once, however long it is.
_NUMBER = re.compile(
    r"(?P<sign>(?<![0-9A-Za-z_)\]])[-−+])?[$€£¥]?"
    r"(?:(?P<digits>(?!0)\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?)"
    r"|(?<!\d)(?<!\d[.,])(?P<comma>(?:(?!0)\d{1,3}(?:\.\d{3})+|\d+),\d+)(?![.,]?\d)"
    r"|(?P<plain>\d+(?:\.\d+)?|(?<!\d)\.\d+))"
    r"(?P<exponent>[eE][-+]?\d+(?!\w))?"
    r"(?:\s?/\s?(?P<denominator>\d+)(?!\d|/|\.\d))?"
)
_ONLY_A_NUMBER = re.compile(_NUMBER.pattern + r"\s?%?")


def is_number(text: str) -> bool:
    """Whether a text can only be a number, but for a unit of money or a percent sign; "1,5" may also be a pair."""
    found = _ONLY_A_NUMBER.fullmatch(text)
    return found is not None and not found["comma"]


def number_in(text: str) -> float | None:
    """The last number in a text: "so it costs $1,234.50." holds 1234.5; None where there is none.

    Thousands separators, currency signs, percent signs and units are passed over; "3/4" is a fraction. One comma
    between digits that sets no thousands apart is a decimal comma, also in brackets: "1,5" is 1.5, "(1,2)" is 1.2 and
    "1.234,50" is 1234.5, but "12,345" is 12345. More of them, as in "1,2,3", and those with a blank after them, as in
    "1, 2", divide a list.
    """
    for match in reversed(list(_NUMBER.finditer(text))):
        value = _value(match)
        if math.isfinite(value):
            return value
    return None


def _value(match: re.Match[str]) -> float:
    if match["comma"]:
        digits = match["comma"].replace(".", "").replace(",", ".")
    else:
        digits = (match["digits"] or match["plain"]).replace(",", "")
    value = float(digits + (match["exponent"] or ""))
    if match["sign"] in ("-", "−"):
        value = -value
    if match["denominator"]:
        denominator = float(match["denominator"])
        value = value / denominator if denominator else math.nan
    return value
