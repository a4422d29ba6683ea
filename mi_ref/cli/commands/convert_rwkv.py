"""``mi-ref convert-rwkv``: an RWKV checkpoint as its authors release it, made readable here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mi_ref.cli import options

_EXAMPLE = """\
mi-ref convert-rwkv rwkv7-g1-0.1b.pth rwkv7-0.1b --vocab rwkv_vocab_v20230424.txt"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.command(
        commands, "convert-rwkv", "convert an RWKV-6 or RWKV-7 .pth file to a folder", _EXAMPLE
    )
    parser.add_argument(
        "src", metavar="SRC.pth", help="BlinkDL's checkpoint, read as tensors and nothing else"
    )
    parser.add_argument("out", metavar="OUT_DIR", help="folder to make; must not hold anything")
    parser.add_argument(
        "--vocab", metavar="FILE", help="rwkv_vocab_*.txt to put beside the weights"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from mi_ref.checkpoints.rwkv_pth import convert_rwkv

    _show(convert_rwkv(arguments.src, arguments.out, vocab=arguments.vocab))


def _show(folder: Path) -> None:
    """Print what was made, read back from the folder's config and the weights' header."""
    import json
    import shlex
    from math import prod

    from mi_ref.checkpoints.files import CONFIG, SINGLE
    from mi_ref.checkpoints.safetensors import Weights
    from mi_ref.output.tables import Styled, Table

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = Weights([folder / SINGLE]).info.values()
    count = sum(prod(tensor.shape) for tensor in tensors)
    d_head = config.get("head_dim") or config["head_size"]
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    table = Table(["converted", str(folder)], flexible=[str(folder)])
    for label, value in (
        ("version", f"RWKV-{config['model_type'][-1]}"),
        ("layers", f"{config['num_hidden_layers']}, d_model {config['hidden_size']:,}"),
        ("heads", f"{config['hidden_size'] // d_head}, d_head {d_head}"),
        ("vocabulary", f"d_vocab {config['vocab_size']:,}"),
        ("parameters", f"{count:,} in {len(tensors)} tensors, {dtypes}"),
        ("next", f"mi-ref inspect {shlex.quote(str(folder))}"),
    ):
        table.add(Styled((label, "dim")), value)
    table.print()
