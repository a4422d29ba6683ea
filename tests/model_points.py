"""Which points a model has."""

from __future__ import annotations

from mi_ref import Model
from mi_ref.sites import Point


def everything(model: Model) -> list[Point]:
    return [entry.point for entry in model.hook_points]


def editable(model: Model) -> list[Point]:
    return [entry.point for entry in model.hook_points if entry.editable]
