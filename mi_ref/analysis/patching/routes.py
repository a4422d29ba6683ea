"""The routes of path patching: who sends, who receives, and what is held still in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.prompts import places
from mi_ref.analysis.patching.grid import Patching
from mi_ref.config.decoder import Layer
from mi_ref.edits.intervention import Places
from mi_ref.errors import HookError
from mi_ref.hooks.capture import Edit, capture
from mi_ref.hooks.selectors import Selector, select
from mi_ref.hooks.sites import LayerPoint, LayerSite, LayerSpan, at
from mi_ref.model import Model
from mi_ref.output.progress import tracked

Sending: TypeAlias = Literal["head", "attn", "mlp"]
Freeze: TypeAlias = Literal["attention", "all"]
Cut: TypeAlias = list[tuple[Selector, Edit]]

_ATTENTION_READS = (
    at.attn_in, at.q, at.k, at.v, at.rot_q, at.rot_k,
    at.rwkv_r, at.rwkv_decay, at.rwkv_a, at.rwkv_kk, at.rwkv_k, at.rwkv_v, at.rwkv_gate,
)  # fmt: skip
_MLP_READS = (at.mlp_in, at.pre, at.pre_linear)


@dataclass(frozen=True, slots=True)
class Receiver:
    """An input that paths end at: ``Receiver(at.q[4], heads=[6])``, ``Receiver(at.mlp_in[5])``.

    Attributes
    ----------
    point : LayerPoint or LayerSpan
        What attention reads or makes of it (``at.attn_in``, ``at.q``, ``at.k``, ``at.v``,
        ``at.rot_q``, ``at.rot_k``; of recurrent models ``at.rwkv_r`` and its like), or what an MLP
        does (``at.mlp_in``, ``at.pre``, ``at.pre_linear``). A norm of all heads' queries as one row
        mixes the heads of ``at.q``: there ``at.rot_q`` keeps them apart.
    heads : Places
        Which; None for all. At ``at.k``, ``at.v`` and ``at.rot_k`` they are key-value heads.
    """

    point: LayerPoint | LayerSpan
    heads: Places = None


@dataclass(frozen=True, slots=True)
class Input:
    """A receiver at one point of one model."""

    point: LayerPoint
    heads: tuple[int, ...] | None

    def __str__(self) -> str:
        if self.heads is None:
            return repr(self.point)
        which = ", ".join(map(str, self.heads))
        return f"{self.point!r} head{'s' * (len(self.heads) > 1)} {which}"


@dataclass(frozen=True, slots=True)
class Sender:
    """A head, or the whole output of attention or an MLP where `head` is None."""

    layer: int
    head: int | None


def read_receivers(model: Model, receivers: Receiver | Sequence[Receiver]) -> tuple[Input, ...]:
    """Return one receiver or several point by point.

    Raises
    ------
    HookError
        If there is none, or one is not an input of attention or an MLP of this model.
    ShapeError
        If a head lies outside.
    """
    found: list[Input] = []
    given = [receivers] if isinstance(receivers, Receiver) else receivers
    if not isinstance(given, Sequence) or not all(isinstance(each, Receiver) for each in given):
        raise HookError(
            f"receivers={receivers!r}: name one Receiver(at.q[3]) or several, or None for the"
            " logits."
        )
    for receiver in given:
        for point in select(receiver.point, model.hook_points, lambda _: True):
            assert isinstance(point, LayerPoint)
            found.append(Input(point, _heads(model, point, receiver.heads)))
    if not found:
        raise HookError("receivers=[] names none: give some, or None for the logits.")
    return tuple(found)


def _heads(model: Model, point: LayerPoint, heads: Places) -> tuple[int, ...] | None:
    entry = model.hook_points.at(point)
    readable = [site for site in _ATTENTION_READS + _MLP_READS if site in model.hook_points.sites]
    if point.site not in readable:
        raise HookError(
            f"{point!r} is not a receiver: paths end at inputs of attention or an MLP,"
            f" {', '.join(map(repr, readable))}."
        )
    if heads is None:
        return None
    if entry.axes[2] not in ("head", "kv_head"):
        raise HookError(f"{point!r} has the axes {' '.join(entry.axes)}: leave out its heads.")
    return places(heads, entry.sizes(1, 1)[2], f"{entry.axes[2]}s of {point!r}")


class Routes:
    """What the runs of one path patching are made of.

    Parameters
    ----------
    patching : Patching
        Between which prompts.
    sending : {"head", "attn", "mlp"}
        What the senders are.
    freeze : {"attention", "all"}
        What is held still after a sender: attention of later layers, or the MLPs too.
    layers, positions : tuple of int
        Where the senders are.
    """

    def __init__(
        self,
        patching: Patching,
        sending: Sending,
        freeze: Freeze,
        layers: tuple[int, ...],
        positions: tuple[int, ...],
    ) -> None:
        self._model, self._sending, self._positions = patching.model, sending, positions
        self._base_tokens, self._all = list(patching.base_tokens), freeze == "all"
        self.site = sending_site(patching.model, sending)
        wanted = [capture(self.site[layer], pos=positions) for layer in layers]
        source = self._model.run(list(patching.source_tokens), capture=wanted, logits="none")
        self._sent = {layer: source[self.site[layer]] for layer in layers}
        outputs = (at.attn_out, at.mlp_out) if self._all else (at.attn_out,)
        points = [site[n] for site in outputs for n in range(min(layers), self._model.cfg.n_layers)]
        base = self._model.run(self._base_tokens, capture=points, logits="none")
        self._base = {point: base[point] for point in points}

    def reaches(self, sender: Sender, point: LayerPoint) -> bool:
        """Whether a point comes after the sender's output: before it nothing can arrive."""
        if sender.layer != point.layer or self._sending == "mlp":
            return sender.layer < point.layer
        layer = self._model.cfg.layers[point.layer]
        # Blocks of recurrent layers are sequential; in a parallel one the MLP does not read heads.
        parallel = isinstance(layer, Layer) and layer.order == "parallel"
        return point.site in (*_MLP_READS, at.mlp_out) and not parallel

    def cut(self, senders: Sequence[Sender], stop: int | None = None) -> Cut:
        """Return the edits that send along the direct paths only, each sender in its own row.

        Parameters
        ----------
        senders : sequence of Sender
            One for each row of the base prompt.
        stop : int or None
            The layer that the run stops before.
        """
        edits: Cut = []
        rows: dict[LayerPoint, list[int]] = {}
        for row, sender in enumerate(senders):
            value, where = self._sent[sender.layer], do.Where(positions=self._positions, rows=row)
            if sender.head is not None:
                value = value[:, :, sender.head : sender.head + 1, :]
                where["heads"] = sender.head
            edits.append((self.site[sender.layer], do.replace(value, **where)))
            for point in self._base:
                if self.reaches(sender, point) and (stop is None or point.layer < stop):
                    rows.setdefault(point, []).append(row)
        frozen = ((point, do.replace(self._base[point], rows=n)) for point, n in rows.items())
        return [*edits, *frozen]

    def arrivals(self, senders: Sequence[Sender], ends: Sequence[Input], rows: int) -> list[Cut]:
        """Return, for each sender, the edits that put in what the receivers get from it.

        Parameters
        ----------
        senders : sequence of Sender
            Each reaches one receiver at least.
        ends : sequence of Input
            The receivers.
        rows : int
            How many senders run as one batch.
        """
        stop = max(end.point.layer for end in ends) + 1
        points = list(dict.fromkeys(end.point for end in ends))
        found: list[Cut] = []
        for start in tracked(range(0, len(senders), rows), "sending"):
            batch = senders[start : start + rows]
            run = self._model.run(
                [self._base_tokens] * len(batch),
                capture=points,
                edits=self.cut(batch, stop),
                stop_at_layer=stop,
                logits="none",
            )
            for row in range(len(batch)):
                found.append([edit for end in ends for edit in self._put(run[end.point], row, end)])
        return found

    def _put(self, value: Array, row: int, end: Input) -> Cut:
        """Return the edits that put one row of `value` in at a receiver."""
        value = value[row : row + 1, ...]
        if end.heads is None:
            return [(end.point, do.replace(value))]
        return [
            (end.point, do.replace(value[:, :, head : head + 1, :], heads=head))
            for head in end.heads
        ]


def sending_site(model: Model, sending: Sending) -> LayerSite:
    """Return where the output of senders passes."""
    if sending == "head":
        return at.rwkv_wkv if model.cfg.recurrent else at.z
    return at.attn_out if sending == "attn" else at.mlp_out
