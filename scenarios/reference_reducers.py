"""What reducers make of the values of the events that pass, for the reference evaluator (contract, section 3)."""

from collections import Counter
from fractions import Fraction
from typing import Any

from actors.language import tree
from scenarios.reference_compare import is_scalar, list_text_of, number_of, text_of


def reduce_values(reducer: tree.Reducer, values: list[Any]) -> Any:
    """Return what a reducer makes of the values that are there, oldest first."""
    match reducer.name:
        case "sum":
            return total([number for value in values if (number := number_of(value)) is not None])
        case "avg":
            numbers = [number for value in values if (number := number_of(value)) is not None]
            return average(numbers) if numbers else None
        case "min" | "max":
            return extreme(reducer, values)
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "mode":
            return most_frequent(reducer, values)
        case "unique":
            texts = sorted(set(texts_in(values)))
            return len(texts) if reducer.counted else texts or None
    raise AssertionError(reducer.name)


def total(numbers: list[int | float]) -> int | float | None:
    """Return an exact sum: of ints an int, else rounded once; a double does not hold every int, nor every sum."""
    exact = sum(map(Fraction, numbers), Fraction(0))
    try:
        return int(exact) if all(isinstance(number, int) for number in numbers) else float(exact)
    except OverflowError:
        return None


def average(numbers: list[int | float]) -> float:
    """Return the mean, of the rounded sum where a double holds it."""
    summed = total(numbers)
    return float(sum(map(Fraction, numbers)) / len(numbers)) if summed is None else float(summed) / len(numbers)


def extreme(reducer: tree.Reducer, values: list[Any]) -> Any:
    """Return the least or greatest number, or text with `as string`; None if there is none."""
    if reducer.cast == "string":
        comparable: list[Any] = [text_of(value) for value in values if is_scalar(value)]
    else:
        comparable = [number for value in values if (number := number_of(value)) is not None]
    return (min if reducer.name == "min" else max)(comparable, default=None)


def texts_in(values: list[Any]) -> list[str]:
    """Return the values as text, each element of an array for itself; objects and nested arrays have none."""
    elements = [element for value in values for element in (value if isinstance(value, list) else [value])]
    return [text_of(element) for element in elements if is_scalar(element)]


def most_frequent(reducer: tree.Reducer, values: list[Any]) -> Any:
    """Return the most frequent value that is frequent enough; among equals the first in alphabetical order."""
    if reducer.cast == "array":
        arrays = {list_text_of(value): value for value in values if isinstance(value, list)}
        texts = [list_text_of(value) for value in values if isinstance(value, list)]
        texts += [text_of(value) for value in values if is_scalar(value)]
    else:
        arrays, texts = {}, texts_in(values)
    counts = Counter(texts)
    best = min(counts, key=lambda text: (-counts[text], text), default=None)
    if best is None or counts[best] < reducer.frequency:
        return None
    return arrays.get(best, best)
