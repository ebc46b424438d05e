"""From axes to combinations, in GitHub's sense of `include` and `exclude`. Pure."""

from __future__ import annotations

from itertools import product

from pipeline.config.container import Pairs
from pipeline.spec import MatrixSpec
from runtime.errors import InvalidInput

LIMIT = 200


def combinations(matrix: MatrixSpec | None) -> tuple[Pairs, ...]:
    """The combinations in the order of the axes; one empty one without a matrix."""
    if matrix is None:
        return ((),)
    names = [name for name, _ in matrix.axes]
    count = 1
    for _, values in matrix.axes:
        count *= len(values)
    if count > LIMIT:
        raise InvalidInput(f"the matrix has {count} combinations", matrix.span, hint=f"at most {LIMIT}")
    rows = (
        [dict(zip(names, row, strict=True)) for row in product(*(values for _, values in matrix.axes))]
        if names
        else []
    )
    rows = [row for row in rows if not any(_holds(row, rule) for rule in matrix.exclude)]
    extra: list[dict[str, str]] = []
    originals = [dict(row) for row in rows]
    for rule in matrix.include:
        own = {key: value for key, value in rule if key in names}
        fitting = [row for row, first in zip(rows, originals, strict=True) if own.items() <= first.items()]
        for row in fitting:
            row.update(rule)
        if not fitting:
            extra.append(dict(rule))
    return tuple(tuple(row.items()) for row in (*rows, *extra))


def _holds(row: dict[str, str], rule: Pairs) -> bool:
    return dict(rule).items() <= row.items()


def combination_name(stage: str, combination: Pairs) -> str:
    """`unit (3.12, arm64)`, as every tool shows it."""
    return f"{stage} ({', '.join(value for _, value in combination)})" if combination else stage
