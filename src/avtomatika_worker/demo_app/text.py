"""Computes statistics of a text in any language that separates its words.

Chinese, Japanese and Thai do not: finding their words needs a dictionary, so a run of them counts as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

WORDS_PER_MINUTE = 230
"""The approximate speed at which adults read prose silently."""

_LITTLE_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by
can cannot could did do does doing down during each few for from further had has have having he her here hers him
his how i if in into is it its itself just may me might more most must my no nor not now of off on once only or
other our ours out over own same shall she should so some such than that the their theirs them then there these
they this those through to too under until up upon us very was we were what when where which while who whom why
will with would yet you your yours
can't couldn't didn't doesn't don't hadn't hasn't haven't he's i'd i'll i'm i've isn't it's she's that's there's
they're wasn't we're weren't what's won't wouldn't you're you've
"""
STOP_WORDS = frozenset(_LITTLE_WORDS.split())
"""English words that say little about a text."""

_INSIDE_WORDS = "'\u2019-\u2010\u2011\u00b7"
_INSIDE_NUMBERS = ".,:"
_INVISIBLE = "\u00ad\u200c\u200d"
"""Soft hyphen and (non-)joiners: they are part of a word."""

_ONE_SPELLING = str.maketrans({"\u2019": "'", "\u00ad": None})

_SENTENCE_END = re.compile(
    r"""
    (?P<wide>[。！？]+[」』”’）]*)            # needs no space after it
    | [.!?…؟।॥]+["'”’»)\]]*(?=\s|$)        # with what closes a quotation
    | \n\s*\n                                # a paragraph ends a sentence without a full stop, such as a title
    """,
    re.VERBOSE,
)
_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "prof", "st", "vs", "fig", "cf", "e.g", "i.e", "approx"})


@dataclass(frozen=True, slots=True)
class WordCount:
    """How often a word occurs, ignoring case."""

    word: str
    count: int


@dataclass(frozen=True, slots=True)
class WordStats:
    """The statistics of a text. The reading time is for silent reading at 230 words a minute."""

    characters: int
    words: int
    unique_words: int
    sentences: int
    top_words: list[WordCount]
    longest_sentence: str
    longest_sentence_words: int
    reading_seconds: int


def measure(text: str, top: int = 10) -> WordStats:
    """Return the statistics of ``text``, with its ``top`` most frequent words that are not stop words."""
    text = unicodedata.normalize("NFC", text)
    found = list(words(text))
    counts = Counter(map(_key, found))
    significant = Counter({word: count for word, count in counts.items() if _is_significant(word)})
    shown = {_key(word): word.lower() for word in reversed(found)}  # the first spelling wins: ß stays ß
    all_sentences = list(sentences(text))
    longest = max(all_sentences, key=_length, default="")
    return WordStats(
        characters=len(text),
        words=len(found),
        unique_words=len(counts),
        sentences=len(all_sentences),
        top_words=[WordCount(shown[word], count) for word, count in significant.most_common(top)],
        longest_sentence=longest,
        longest_sentence_words=_length(longest),
        reading_seconds=round(len(found) * 60 / WORDS_PER_MINUTE),
    )


def words(text: str) -> Iterator[str]:
    """Yield the words: letters with their marks, and digits, with inner apostrophes and hyphens (``don't``)."""
    word = ""
    for index, character in enumerate(text):
        if _is_letter(character) or (word and (character in _INVISIBLE or _joins(text, index))):
            word += character
        elif word:
            yield word
            word = ""
    if word:
        yield word


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences that contain a word, on one line each."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if end["wide"] or not _goes_on(text, start, end):
            yield from _sentence(text[start : end.end()])
            start = end.end()
    yield from _sentence(text[start:])


def _sentence(text: str) -> Iterator[str]:
    if next(words(text), None) is not None:
        yield " ".join(text.split())


def _goes_on(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether a period does not end its sentence: after an abbreviation or initial, or before a small letter."""
    if not end[0].strip():  # a paragraph's end
        return False
    following = text[end.end() :].lstrip()
    if following[:1].islower():
        return True
    before = text[start : end.start()].split()
    last = before[-1].lstrip("([\"'“‘«") if before else ""
    return end[0] == "." and (last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I"))


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"  # letters, the marks on them, numbers


def _joins(text: str, index: int) -> bool:
    """Whether a character is inside a word or a number (``3.14``)."""
    around = text[index - 1], text[index + 1 : index + 2]
    if text[index] in _INSIDE_WORDS:
        return bool(around[1]) and _is_letter(around[1])
    return text[index] in _INSIDE_NUMBERS and all(side.isdecimal() for side in around)


def _key(word: str) -> str:
    return word.translate(_ONE_SPELLING).casefold()


def _is_significant(word: str) -> bool:
    return word not in STOP_WORDS and not word.isdecimal() and len(word) > 1


def _length(sentence: str) -> int:
    return sum(1 for _ in words(sentence))
