"""An inspection as a table, and a decoder's sizes as a JSON record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from mi_ref.checkpoints.inspected import Inspected
from mi_ref.config.decoder import MLP, Attention, ChannelMix, DecoderConfig, RecurrentLayer, TimeMix
from mi_ref.config.rope import Rotary
from mi_ref.output.tables import Styled, Table


def inspection_table(found: Inspected) -> Table:
    """Return a table of what a checkpoint is and whether it loads, or why not."""
    table = Table(["checkpoint", found.name], flexible=[found.name], widest=96)
    for label, value in _lines(found):
        table.add(Styled((label, "dim")), value)
    reasons = found.refusals
    if not reasons:
        table.add("loads", Styled(("yes, as far as headers show", "bold green")))
    for number, reason in enumerate(reasons, start=1):
        table.add(Styled((f"refused {number}/{len(reasons)}", "bold red")), reason)
    return table


def sizes(cfg: DecoderConfig) -> dict[str, Any]:
    """Return a decoder's structure and sizes, ready for JSON."""
    return {
        "n_layers": cfg.n_layers,
        "d_model": cfg.d_model,
        "n_heads": cfg.n_heads,
        "n_key_value_heads": cfg.n_key_value_heads,
        "d_head": cfg.d_head,
        "d_mlp": cfg.d_mlp,
        "act_fn": cfg.act_fn,
        "d_vocab": cfg.d_vocab,
        "n_ctx": cfg.n_ctx,
        **(_attending(cfg) if cfg.blocks else {}),
        **(_recurrent(cfg) if len(cfg.blocks) < cfg.n_layers else {}),
        "mlp": [_kind(layer.mlp, "MLP") for layer in cfg.layers],
        "norm": cfg.normalization_type,
        "norm_embed": cfg.ln_embed is not None,
        "eps": cfg.eps,
        "tied": cfg.tied,
    }


def _attending(cfg: DecoderConfig) -> dict[str, Any]:
    attn = cfg.blocks[0].attn
    return {
        "order": [layer.order for layer in cfg.blocks],
        "windows": [layer.attn.window for layer in cfg.blocks],
        "rotary": [_rotary(layer.attn.rotary) for layer in cfg.blocks],
        "softcaps": {"scores": attn.softcap, "logits": cfg.softcap},
        "biases": {"qkv": attn.bias_qkv, "attn_out": attn.bias_out, "unembed": cfg.bias_unembed},
    }


def _recurrent(cfg: DecoderConfig) -> dict[str, Any]:
    mixers = [layer.mixer for layer in cfg.layers if isinstance(layer, RecurrentLayer)]
    return {"recurrence": [_kind(mixer, "") for mixer in mixers]}


def _rotary(rotary: Rotary | None) -> dict[str, Any] | None:
    if rotary is None:
        return None
    kind = type(rotary.rope).__name__.removesuffix("Rope").lower()
    return {"kind": kind, "dims": rotary.dims, **asdict(rotary.rope)}


def _kind(of: MLP | Attention | TimeMix | ChannelMix, suffix: str) -> dict[str, Any]:
    name = type(of).__name__
    return {"kind": _KINDS.get(name) or name.removesuffix(suffix).lower(), **asdict(of)}


def _runs(values: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return each distinct value, with the layers that have it."""
    layers: dict[str, tuple[list[int], Any]] = {}
    for number, value in enumerate(values):
        layers.setdefault(repr(value), ([], value))[0].append(number)
    return [
        ("" if len(layers) == 1 else f"layers {', '.join(map(str, numbers))}: ", value)
        for numbers, value in layers.values()
    ]


def _lines(found: Inspected) -> Iterator[tuple[str, str]]:
    """Yield the lines of a checkpoint's table."""
    if found.revision is not None:
        yield "revision", found.revision
    read_as = "" if found.supported else f" (unknown; the nearest is {found.fit.family.model_type})"
    yield "model_type", f"{found.model_type}{read_as}"
    if found.config is not None:
        yield from _size_lines(sizes(found.config))
    in_memory = ", ".join(f"{_bytes(found.n_params * n)} as float{8 * n}" for n in (4, 8))
    stored = ", ".join(f"{_bytes(size)} as {dtype}" for dtype, (_, size) in found.stored.items())
    yield "parameters", f"{found.n_params:,} in {found.n_tensors} tensors"
    yield "stored", stored or "unknown"
    yield "in memory", in_memory
    tokenizer = found.tokenizer
    bos = f"{tokenizer.bos!r} {'' if tokenizer.adds_bos else 'not '}added before a text"
    text = f"{tokenizer.kind}, {tokenizer.size or 0:,} tokens, {bos if tokenizer.bos else 'no BOS'}"
    yield "tokenizer", tokenizer.problem or text
    if found.config is not None:
        for sentence in found.config.inferred:
            yield "inferred", sentence


def _size_lines(of: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "layers", f"{of['n_layers']}, d_model {of['d_model']:,}"
    if "windows" in of:
        yield from _attention_lines(of)
    if "recurrence" in of:
        yield from _recurrence_lines(of)
    for where, mlp in _runs(of["mlp"]):
        yield "MLP", where + _numbers(mlp)
    for where, rotary in _runs(of.get("rotary", ())):
        yield (
            "rotary",
            where + ("none: positions are learned" if rotary is None else _numbers(rotary)),
        )
    embedding = ", also after the embedding" if of["norm_embed"] else ""
    yield "norm", f"{of['norm']}, eps {of['eps']}{embedding}"
    for what, cap in of.get("softcaps", {}).items():
        if cap is not None:
            yield "soft-cap", f"{what} within ±{cap:g}"
    if "biases" in of:
        yield "biases", ", ".join(name for name, has in of["biases"].items() if has) or "none"
    tied = "tied to" if of["tied"] else "separate from"
    yield "vocabulary", f"d_vocab {of['d_vocab']:,}, unembedding {tied} the embedding"
    if of["n_ctx"] is not None:
        yield "context", f"{of['n_ctx']:,} positions"


def _attention_lines(of: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "attention",
        f"{of['n_heads']} query heads, {of['n_key_value_heads']} key and value heads,"
        f" d_head {of['d_head']}",
    )
    for where, window in _runs(of["windows"]):
        yield "window", where + ("none" if window is None else f"{window:,} keys")
    for where, order in _runs(of["order"]):
        yield "block", f"{where}attention and MLP {_ORDERS[order]}"


def _recurrence_lines(of: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for where, recurrence in _runs(of["recurrence"]):
        yield "recurrence", where + _numbers(recurrence)


_KINDS = {"TimeMix6": "RWKV-6", "TimeMix7": "RWKV-7", "ChannelMix": "channel mixing"}
_ORDERS = {"sequential": "one after the other", "parallel": "in parallel"}


def _numbers(of: Mapping[str, Any]) -> str:
    """Describe an object: its kind, then its fields, with only the length of long lists."""
    shown = {
        key: f"{len(value)} numbers" if isinstance(value, tuple) else value
        for key, value in of.items()
        if key != "kind"
    }
    return f"{of['kind']}: " + ", ".join(f"{key} {value}" for key, value in shown.items())


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1000
    return f"{size:.4g} TB"
