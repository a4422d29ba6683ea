"""AlgZoo's networks from safetensors files, every tensor of which must be known and fit."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from mi_ref.algzoo import weight_shapes
from mi_ref.algzoo.attention import Attention
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.rnn import Rnn
from mi_ref.backend import Backend, get_backend
from mi_ref.checkpoints.safetensors import Weights
from mi_ref.checkpoints.source import Source
from mi_ref.errors import HubError, WeightError

BUNDLED = {"second-argmax-h2-n2": "second_argmax", "longest-cycle-h4-n4": "longest_cycle"}
"""Networks that come with this package, each with the task it was trained for."""

_FOLDER = Path(__file__).parents[1] / "models" / "algzoo"
_LAYER = re.compile(r"attns\.(\d+)\.(?:in_proj_weight|out_proj\.weight)")
_PICKLES = {".pth", ".pt", ".bin", ".ckpt", ".pkl"}


def load(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: str = "float64",
    backend: str | Backend = "numpy",
    device: str | int | None = None,
) -> Network:
    """Return a network of AlgZoo's, an `Rnn` or an `Attention` by the names of its tensors.

    Parameters
    ----------
    name_or_path : str or path
        A safetensors file (looked for first) or a name in `BUNDLED`.
    dtype : str
        ``"float64"`` or ``"float32"``: what it computes in.
    backend, device
        As for `mi_ref.from_pretrained`.

    Raises
    ------
    BackendError
        If the backend is missing, or does not run in that dtype.
    HubError
        If there is no such file.
    WeightError
        If it is a pickle, or tensors are missing, unexpected or of the wrong shape: all are listed.
    """
    name = os.fspath(name_or_path)
    weights = Weights([_find(name)])
    chosen = get_backend(backend, device)
    chosen.dtype(dtype)
    shapes = {tensor: info.shape for tensor, info in weights.info.items()}
    axes = _axes(name, shapes)
    if wrong := weight_shapes.misfits(axes, shapes):
        raise WeightError(
            f"{name} does not hold a network of AlgZoo's:\n  " + "\n  ".join(wrong) + "\n"
            "Is it the state_dict of a whole model?"
        )
    arrays = [chosen.from_host(weights.load(tensor, dtype)) for tensor in axes]
    source = Source(name, None, weights.files())
    if axes is weight_shapes.RNN:
        w_ih, w_hh, w_oh = arrays
        return Rnn(w_ih[:, 0], w_hh, w_oh, source=source, backend=chosen)
    embed, pos_embed, unembed, *layers = arrays
    projections = tuple(layers[::2]), tuple(layers[1::2])
    return Attention(embed, pos_embed, unembed, *projections, source=source, backend=chosen)


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in _PICKLES:
        old, new = (shlex.quote(str(file)) for file in (path, path.with_suffix(".safetensors")))
        raise WeightError(
            f"{name!r} is a pickle by its name, which can run any code when it is opened, so it is"
            " not. Where torch is installed, convert its tensors, and nothing else:\n"
            '    python -c "import sys, torch, safetensors.torch as s;'
            ' s.save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])"'
            f" {old} {new}"
        )
    if path.is_file():
        return path
    if name in BUNDLED:
        return _FOLDER / f"{name}.safetensors"
    near = difflib.get_close_matches(name, BUNDLED, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise HubError(
        f"there is no file {name!r} (working directory: {Path.cwd()}). Pass a safetensors file, or"
        f" a bundled network: {', '.join(BUNDLED)}.{meant}"
    )


def _axes(name: str, shapes: Mapping[str, tuple[int, ...]]) -> weight_shapes.Axes:
    """Return what the file should hold, going by most of the names in it."""
    layers = [int(found[1]) for tensor in shapes if (found := _LAYER.fullmatch(tensor))]
    # No layer without tensors of its own is worth listing as missing, so one far too high counts
    # as unexpected.
    n_layers = min(max(layers, default=0), len(layers)) + 1
    kinds = weight_shapes.RNN, weight_shapes.attention(n_layers)
    rnn, attention = (len(axes.keys() & shapes.keys()) for axes in kinds)
    if not rnn and not attention:
        first = ", ".join(sorted(shapes)[:4]) or "none at all"
        raise WeightError(
            f"{name} has no tensor that AlgZoo's networks have, such as"
            f" {' or '.join(next(iter(axes)) for axes in kinds)}; its first names: {first}."
        )
    return kinds[rnn <= attention]
