"""Einsum, written out in Transpose, MatMul and Mul, so that each of its products has a rule.

Of two operands, an index that both have and the result has not is summed over by a MatMul; one that
both and the result have is one of its batch, and so is, with size 1 in the other operand, all but
one of those that a single operand has. No size is ever named: they may be symbols.
"""

from __future__ import annotations

from collections.abc import Generator
from string import ascii_letters

from onnxlrp.graph.bodies import Call, Lines, UnfitError, body, integers

_NAMES = "abcdefgh"

Named = Generator[str, None, str]
"""Lines, and the name of what they make."""


@body(f"{' '.join(_NAMES)} -> y", "Einsum")
def _einsum(call: Call) -> Lines:
    terms, result = _terms(call)
    made = indices = ""
    for place, term in enumerate(terms):
        later = "".join(terms[place + 1 :]) + result
        other, term = yield from _once(call, place, term)
        other = yield from _summed(other, term, indices + later)
        term = _kept(term, indices + later)
        if place == 0:
            made, indices = other, term
            continue
        wanted = _kept("".join(dict.fromkeys(indices + term)), later)
        made = yield from _pair(f"p{place}", (made, indices), (other, term), wanted)
        indices = wanted
    made = yield from _moved(made, indices, result)
    yield f"y = Identity({made})"


def _terms(call: Call) -> tuple[list[str], str]:
    """Return the indices of every operand and of the result, one letter an axis."""
    equation = call.text("equation").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    free = [letter for letter in ascii_letters if letter not in equation]
    # Where operands have fewer axes for an ellipsis, these are the last.
    most = 0
    for place, term in enumerate(terms):
        if "..." in term:
            most = max(most, len(call.sizes(place)) - len(term) + 3)
    dots = "".join(free[:most])
    for place, term in enumerate(terms):
        if "..." in term:
            count = len(call.sizes(place)) - len(term) + 3
            terms[place] = term.replace("...", dots[most - count :])
    if arrow:
        result = result.replace("...", dots)
    else:
        every = "".join(terms)
        single = sorted(i for i in set(every) if every.count(i) == 1 and i not in dots)
        result = dots + "".join(single)
    if len(terms) > len(_NAMES) or len(set(result)) < len(result):
        raise UnfitError
    return terms, result


def _once(call: Call, place: int, term: str) -> Generator[str, None, tuple[str, str]]:
    """Take the diagonal of axes with the same index: nothing else is left in their sum."""
    made, sizes = _NAMES[place], call.sizes(place)
    while repeated := [axis for axis, index in enumerate(term) if index in term[:axis]]:
        last = repeated[0]
        first, size = term.index(term[last]), sizes[last]
        if size is None:
            raise UnfitError
        shape = [size if axis in (first, last) else 1 for axis in range(len(term))]
        eye = ", ".join(str(int(i == j)) for i in range(size) for j in range(size))
        name = f"{_NAMES[place]}_{len(term)}"
        yield f"{name}_32 = Constant<value = float{shape} {{{eye}}}>()"
        yield f"{name}_eye = Cast<to={call.kind(place)}>({name}_32)"
        yield f"{name}_kept = Mul({made}, {name}_eye)"
        yield integers(f"{name}_axis", last)
        yield f"{name}_sum = ReduceSum<keepdims=0>({name}_kept, {name}_axis)"
        made, term, sizes = f"{name}_sum", term[:last] + term[last + 1 :], list(sizes)
        del sizes[last]
    return made, term


def _kept(term: str, others: str) -> str:
    return "".join(index for index in term if index in others)


def _summed(given: str, term: str, others: str) -> Named:
    """Sum over what neither the result nor another operand has."""
    axes = [axis for axis, index in enumerate(term) if index not in others]
    if not axes:
        return given
    yield integers(f"{given}_axes", *axes)
    yield f"{given}_sum = ReduceSum<keepdims=0>({given}, {given}_axes)"
    return f"{given}_sum"


def _moved(given: str, indices: str, order: str) -> Named:
    """Bring axes into an order."""
    if indices == order:
        return given
    yield f"{given}_t = Transpose<perm={[indices.index(index) for index in order]}>({given})"
    return f"{given}_t"


def _placed(given: str, indices: str, order: str) -> Named:
    """Bring axes into an order, with new ones of size 1 for what is missing."""
    made = yield from _moved(given, indices, _kept(order, indices))
    missing = [axis for axis, index in enumerate(order) if index not in indices]
    if not missing:
        return made
    yield integers(f"{given}_m", *missing)
    yield f"{given}_u = Unsqueeze({made}, {given}_m)"
    return f"{given}_u"


def _fewest(order: str, indices: str) -> str:
    """Leave out the axes in front that broadcasting adds."""
    first = next((at for at, index in enumerate(order) if index in indices), len(order))
    return order[first:]


def _pair(name: str, left: tuple[str, str], right: tuple[str, str], wanted: str) -> Named:
    """Multiply two operands, and sum over what is not wanted; the result is in `wanted`'s order."""
    first, second = left[1], right[1]
    over = "".join(index for index in _kept(first, second) if index not in wanted)
    if not over:
        a = yield from _placed(*left, _fewest(wanted, first))
        b = yield from _placed(*right, _fewest(wanted, second))
        yield f"{name} = Mul({a}, {b})"
        return name
    # An operand without an index of its own has one row, or column, of no name.
    row = "".join(index for index in first if index not in second)[-1:]
    column = "".join(index for index in second if index not in first)[-1:]
    batch = "".join(index for index in wanted if index not in row + column)
    a = yield from _matrix(left, batch, row, over, summed_last=True)
    b = yield from _matrix(right, batch, column, over, summed_last=False)
    yield f"{name} = MatMul({a}, {b})"
    made = name
    empty = [len(batch) + at for at, index in enumerate((row, column)) if not index]
    if empty:
        yield integers(f"{name}_q", *empty)
        yield f"{name}_s = Squeeze({name}, {name}_q)"
        made = f"{name}_s"
    return (yield from _moved(made, batch + row + column, wanted))


def _matrix(operand: tuple[str, str], batch: str, own: str, over: str, summed_last: bool) -> Named:
    """Lay an operand out as matrices of its own index and those that are summed over."""
    given, indices = operand
    front, own = _fewest(batch, indices), own or "-"
    if len(over) == 1:
        return (
            yield from _placed(given, indices, front + (own + over if summed_last else over + own))
        )
    # All that is summed over becomes one axis; 0 copies a size.
    made = yield from _placed(given, indices, front + own + over)
    yield integers(f"{given}_r", *[0] * (len(front) + 1), -1)
    yield f"{given}_f = Reshape({made}, {given}_r)"
    if summed_last:
        return f"{given}_f"
    count = len(front)
    yield f"{given}_w = Transpose<perm={[*range(count), count + 1, count]}>({given}_f)"
    return f"{given}_w"
