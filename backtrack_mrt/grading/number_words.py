"""English number words as exact values: "two thirds", "three hundred five", and multipliers after a numeral.

A multiplier ("2.5 million", "3 dozen", "5 halves") is part of the number, never a unit.
"""

from __future__ import annotations

from fractions import Fraction

_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"

SMALL = {word: value for value, word in enumerate(_SMALL.split())}
TENS = {word: 10 * (value + 2) for value, word in enumerate(_TENS.split())}
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15,
    "quintillion": 10**18, "lakh": 10**5, "crore": 10**7, "dozen": 12, "score": 20, "gross": 144,
}  # fmt: skip
PARTS = {word: Fraction(1, value + 3) for value, word in enumerate(_ORDINALS.split())}
PARTS |= {"half": Fraction(1, 2), "halve": Fraction(1, 2), "quarter": Fraction(1, 4), "hundredth": Fraction(1, 100)}
PARTS |= {"thousandth": Fraction(1, 1000), "millionth": Fraction(1, 10**6), "twentieth": Fraction(1, 20)}

NUMBER_WORDS = frozenset(SMALL) | frozenset(TENS) | frozenset(SCALES) | frozenset(PARTS)


def multiplier(word: str) -> Fraction | None:
    """What a numeral before this word is multiplied by, or None."""
    if word in SCALES:
        return Fraction(SCALES[word])
    single = word.removesuffix("s")
    return PARTS.get(word) or PARTS.get(single) or (Fraction(SCALES[single]) if single in SCALES else None)


def is_number_word(word: str) -> bool:
    """Whether the word counts, in any of its forms."""
    return word in NUMBER_WORDS or word.removesuffix("s") in NUMBER_WORDS


def leading_number(words: list[str]) -> tuple[Fraction, int] | None:
    """The value of the number at the start of lower-case `words` and how many of them it takes, or None.

    Scales must fall ("two thousand three hundred"), except that hundreds may be multiplied on ("hundred thousand").
    """
    total = group = Fraction(0)
    taken, last, lowest = 0, "", Fraction(10**21)
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word in ("a", "an") and not taken and len(words) > 1 and multiplier(words[1]) is not None:
            group = Fraction(1)
        elif word in ("a", "an", "of") and last == "part" and (following in SCALES or following in ("a", "an")):
            pass  # half a dozen, a quarter of a million
        elif word in SMALL and (last in ("", "scale") or (last == "tens" and 0 < SMALL[word] < 10)):
            group, last = group + SMALL[word], "small"
        elif word in TENS and last in ("", "scale"):
            group, last = group + TENS[word], "tens"
        elif word in SCALES and (group or total):
            if word in ("hundred", "dozen", "score", "gross") or group == 0:
                group = (group or total) * SCALES[word]
                total = total if group != total * SCALES[word] else Fraction(0)
            elif SCALES[word] < lowest:
                lowest = Fraction(SCALES[word])
                total, group = total + group * lowest, Fraction(0)
            else:
                return None
            last = "scale"
        elif (part := multiplier(word)) is not None and part < 1 and last != "part" and (taken or word == "half"):
            total, group, last = (total + group if taken else Fraction(1)) * part, Fraction(0), "part"
        elif word in SMALL or word in TENS or word in SCALES:
            return None  # "one two" is no number
        else:
            break
        taken += 1
    return (total + group, taken) if taken else None
