"""How probable it is that a film without the watermark looks as if it had one."""

from __future__ import annotations

import math


def log10_tail(total: float, terms: int) -> float:
    """Return the decimal logarithm of the probability that the sum of squares of `terms` normal numbers is `total` or more.

    The numbers have a mean of 0 and a variance of 1. This is the tail of the chi-squared distribution with an even number of
    degrees of freedom. Source: Abramowitz and Stegun 1964, 26.4.21.

    Args:
        total: sum of squares, above 0.
        terms: number of squares, even.
    """
    half = 0.5 * total
    logs = [place * math.log(half) - math.lgamma(place + 1) for place in range(terms // 2)]
    highest = max(logs)
    summed = highest + math.log(sum(math.exp(value - highest) for value in logs))
    return min(0.0, (summed - half) / math.log(10.0))
