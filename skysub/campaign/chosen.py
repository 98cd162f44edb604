"""Which columns and rows of a table are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub.errors import ConfigError
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    Condition = tuple[str, str, Any]
    Where = Sequence[Condition] | Sequence[Sequence[Condition]] | Any | None

__all__ = ["Chosen"]

_KEYS = ("visit", "detector")
_OPERATIONS = ("==", "=", "!=", "<", "<=", ">", ">=", "in", "not in")


@dataclass(frozen=True)
class Chosen:
    """Columns and rows that are wanted of each part of a table."""

    columns: tuple[str, ...] | None
    """None for all."""
    needed: tuple[str, ...] | None
    """Those that have to be read: the conditions' as well; None for all."""
    expression: Any
    """Of pyarrow.compute; None for all rows."""

    @classmethod
    def of(cls, columns: Collection[str] | None, where: Where) -> Chosen:
        """From what a caller gives.

        Raises
        ------
        ConfigError
            When ``where`` is no condition, or ``columns`` one word.
        """
        if isinstance(columns, str):
            raise ConfigError(f"columns must be a list of names, not the word {columns!r}")
        wanted = None if columns is None else tuple(dict.fromkeys([*_KEYS, *columns]))
        if where is None:
            return cls(wanted, wanted, None)
        from pyarrow import compute, parquet

        if isinstance(where, compute.Expression):
            # an expression does not say which columns it reads
            return cls(wanted, None, where)
        groups = _groups(where)
        named = [name for group in groups for name, _, _ in group]
        needed = None if wanted is None else tuple(dict.fromkeys([*wanted, *named]))
        return cls(wanted, needed, parquet.filters_to_expression(groups))

    def rows(self, read: Callable[[list[str] | None], Any], where: str = "") -> Any:
        """Arrow table of what is wanted, from a function that reads some columns of a part, or all.

        Raises
        ------
        ConfigError
            When there is no column of a name, or a condition cannot be put to its column.
        """
        table = read(None if self.needed is None else list(self.needed))
        for name in self.needed or ():
            if name not in table.column_names:
                known = read(None).column_names
                raise ConfigError(f"{where}there is no column {name!r}{closest(name, known)}")
        if self.expression is not None:
            import pyarrow as pa

            try:
                table = table.filter(self.expression)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise ConfigError(f"{where}rows cannot be chosen so: {error}") from error
        return table if self.columns is None else table.select(list(self.columns))


def _groups(where: Any) -> list[list[tuple[str, str, Any]]]:
    """Conditions as lists of lists: of one inner list all must hold."""
    if isinstance(where, (str, bytes)) or not hasattr(where, "__iter__"):
        raise ConfigError(f"where must be a list of conditions (column, comparison, value), not {where!r}")
    listed = list(where)
    groups = [listed] if all(_is_condition(each) for each in listed) else [list(each) for each in listed]
    for group in groups:
        for each in group:
            if not _is_condition(each):
                raise ConfigError(
                    f"where has {each!r}, which is no condition (column, comparison, value) with one of "
                    f"{', '.join(_OPERATIONS)}"
                )
    if not groups or not all(groups):
        raise ConfigError("where has no condition; leave it out for all rows")
    return [[(str(name), str(operation), value) for name, operation, value in group] for group in groups]


def _is_condition(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 3
        and isinstance(value[0], str)
        and value[1] in _OPERATIONS
    )
