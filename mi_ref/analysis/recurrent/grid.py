"""What is left of a prediction after each of many changes of a recurrent model's state."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from mi_ref.analysis.measure.next_token import Outcome
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance

_COLUMNS = {
    "state_knockout": "token",
    "state_steering": "scale of the write",
    "state_patching": "head",
}


@dataclass(frozen=True, slots=True, repr=False)
class StateGrid(Result):
    """What is left of a prediction after each of many changes of the state.

    Attributes
    ----------
    kind : str
        ``"state_knockout"``, ``"state_steering"`` or ``"state_patching"``.
    cells : tuple of tuple of Outcome
        By layer in the order of `layers`, then by column.
    layers : tuple of int
        Those changed.
    columns : tuple of str
        What the columns are: tokens, scales, or heads.
    together : tuple of Outcome
        By column: changed in all of `layers` at once.
    natural : float
        The target's probability without any change.
    target, target_token : int, str
        The token followed.
    prompts : tuple of tuple of int
        The tokens of the prompt; for patching, of what is patched, of the source and of what both
        read then.
    """

    kind: str
    cells: tuple[tuple[Outcome, ...], ...]
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    together: tuple[Outcome, ...]
    natural: float
    target: int
    target_token: str
    prompts: tuple[tuple[int, ...], ...]
    origin: Origin = field(compare=False)

    def strongest(self) -> tuple[int, int]:
        """Return the layer and the column (counted from 0) whose change costs most nats."""
        ranked = [
            (cell.kl, layer, column)
            for layer, row in zip(self.layers, self.cells, strict=True)
            for column, cell in enumerate(row)
        ]
        _, layer, column = max(ranked)
        return layer, column

    def table(self) -> Table:
        """Return one row per layer, each cell with the target's probability and the KL."""
        title = f"p({self.target_token!r}), unchanged {chance(self.natural)}, and KL in nats"
        table = Table([">layer", *(f">{name}" for name in self.columns)], title)
        for layer, row in zip((*self.layers, "all"), (*self.cells, self.together), strict=True):
            table.add(layer, *(f"{chance(cell.probability)} {cell.kl:.2f}" for cell in row))
        return table

    def summary(self) -> str:
        """Return which change matters most, as a sentence."""
        layer, column = self.strongest()
        cell = self.cells[self.layers.index(layer)][column]
        return (
            f"In layer {layer}, {self.columns[column]} matters most: KL {cell.kl:.2f} nats,"
            f" {self.target_token!r} from {chance(self.natural)} to {chance(cell.probability)}."
        )

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self,
            self.kind,
            self.prompts,
            units={"kl": "nats, KL(unchanged || changed)"},
            layers=list(self.layers),
            columns=list(self.columns),
            target={"id": self.target, "token": self.target_token, "natural": self.natural},
            cells=[[asdict(cell) for cell in row] for row in self.cells],
            together=[asdict(cell) for cell in self.together],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the KL: layers over columns."""
        from mi_ref.output.plots import heat_map

        heat_map(
            path, [[cell.kl for cell in row] for row in self.cells],
            rows=[str(layer) for layer in self.layers],
            columns=[name.removeprefix("head ") for name in self.columns],
            title=self.kind.replace("_", " ").capitalize(), row_label="layer",
            column_label=_COLUMNS[self.kind],
            unit="KL(unchanged || changed), nats",
        )  # fmt: skip
