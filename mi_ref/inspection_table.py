"""An inspection as a table, and a decoder's sizes as a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from mi_ref.config import DecoderConfig
from mi_ref.inspection import Inspection
from mi_ref.tables import Cell, Table


def inspection_table(found: Inspection) -> Table:
    """Return what a checkpoint is, then whether it loads or each reason why not."""
    table = Table(["checkpoint", found.name], flexible=[found.name], widest=96)
    for label, value in _lines(found):
        table.add(Cell((label, "dim")), value)
    reasons = found.refusals
    if not reasons:
        table.add("loads", Cell(("yes, as far as headers show", "bold green")))
    for number, reason in enumerate(reasons, start=1):
        table.add(Cell((f"refused {number}/{len(reasons)}", "bold red")), reason)
    return table


def sizes(cfg: DecoderConfig) -> dict[str, Any]:
    """Return the numbers that make up a decoder, ready for JSON."""
    attn, mlp = cfg.layers[0].attn, cfg.layers[0].mlp
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
        "window": None,
        "rotary": {
            "kind": type(attn.rope).__name__.removesuffix("Rope").lower(),
            **asdict(attn.rope),
        },
        "norm": cfg.normalization_type,
        "eps": cfg.eps,
        "biases": {"qkv": attn.bias_qkv, "attn_out": attn.bias_out, "mlp": mlp.bias},
        "tied": cfg.tied,
    }


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield what a table says of a checkpoint, line by line."""
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


def _size_lines(of: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "layers", f"{of['n_layers']}, d_model {of['d_model']:,}"
    yield (
        "attention",
        f"{of['n_heads']} query heads, {of['n_key_value_heads']} key and value heads,"
        f" d_head {of['d_head']}, {'no window' if of['window'] is None else of['window']}",
    )
    yield "MLP", f"gated, d_mlp {of['d_mlp']:,}, {of['act_fn']}"
    numbers = dict(of["rotary"])
    kind = numbers.pop("kind")
    yield "rotary", f"{kind}: " + ", ".join(f"{key} {value}" for key, value in numbers.items())
    yield "norm", f"{of['norm']}, eps {of['eps']}"
    biases = [name for name, present in of["biases"].items() if present]
    yield "biases", ", ".join(biases) or "none"
    tied = "tied to" if of["tied"] else "apart from"
    yield "vocabulary", f"d_vocab {of['d_vocab']:,}, unembedding {tied} the embedding"
    yield "context", f"{of['n_ctx']:,} positions"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1000
    return f"{size:.4g} TB"
