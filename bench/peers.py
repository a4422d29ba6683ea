"""The two sides of the comparison, behind one interface: same weights, same tokens, same tasks.

Each task returns the values a user would keep, so that they live until the clock stops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

TASKS = ("plain", "last", "hook", "everything")
"""All logits; the last position's only; all, with one residual stream kept; all, with all kept."""

Task = Callable[[], Any]


class Peer(Protocol):
    """One side."""

    name: str

    def prepare(self) -> None:
        """Get ready to be timed; not timed itself."""

    def task(self, name: str, tokens: list[int]) -> Task | None:
        """Return a call that does the task on one prompt, None if this side does not take part."""

    def to_numpy(self, result: Any) -> np.ndarray[Any, Any]:
        """Return the logits of task "plain"."""

    def kept_bytes(self, result: Any) -> int:
        """Return the size of everything a task returned, counting shared memory once."""


class MiRef:
    """The library of this repository, with its default backend."""

    name = "mi_ref"

    def __init__(self, folder: Path) -> None:
        import mi_ref

        self._model = mi_ref.from_pretrained(folder)
        self._middle = mi_ref.at.resid_post[self._model.cfg.n_layers // 2]

    def prepare(self) -> None:
        """Do nothing: a model has no state."""

    def task(self, name: str, tokens: list[int]) -> Task | None:
        model = self._model
        prompt = np.asarray([tokens])
        match name:
            case "plain":
                return lambda: model.run(prompt)
            case "last":
                return lambda: model.run(prompt, logits="last")
            case "hook":
                return lambda: model.run(prompt, capture=[self._middle])
            case "everything":
                return lambda: model.run_with_cache(prompt)
            case _:
                return None

    def to_numpy(self, result: Any) -> np.ndarray[Any, Any]:
        return np.asarray(result.logits)

    def kept_bytes(self, result: Any) -> int:
        logits, cache = result if isinstance(result, tuple) else (result.logits, result.cache)
        return _distinct_bytes((_owner(a), a.nbytes) for a in [logits, *cache.values()])


class HuggingFace:
    """transformers on the CPU, with one of its ways to compute attention.

    Parameters
    ----------
    model : PreTrainedModel
        As `load_huggingface` returns it; both ways share its weights.
    attention : {"sdpa", "eager"}
        Only "eager" can give the attention pattern, so only it can keep everything.
    """

    def __init__(self, model: Any, attention: str) -> None:
        self.name = f"HF {attention}"
        self._model = model
        self._attention = attention

    def prepare(self) -> None:
        self._model.set_attn_implementation(self._attention)

    def task(self, name: str, tokens: list[int]) -> Task | None:
        import torch

        prompt = torch.tensor([tokens])

        def forward(**options: Any) -> Any:
            with torch.inference_mode():
                return self._model(input_ids=prompt, use_cache=False, **options)

        def hooked() -> Any:
            middle = self._model.model.layers[len(self._model.model.layers) // 2]
            return self._with_hooks([("middle", middle)], forward)

        def everything() -> Any:
            modules = [(name, module) for name, module in self._model.named_modules() if name]
            return self._with_hooks(modules, lambda: forward(output_attentions=True))

        match name:
            case "plain":
                return forward
            case "last":
                return lambda: forward(logits_to_keep=1)
            case "hook":
                return hooked
            case "everything" if self._attention == "eager":
                return everything
            case _:
                return None

    def _with_hooks(self, modules: Iterable[tuple[str, Any]], forward: Task) -> Any:
        """Keep the output of each module of one forward pass."""
        kept: dict[str, Any] = {}
        handles = [
            module.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out}))
            for name, module in modules
        ]
        try:
            return forward(), kept
        finally:
            for handle in handles:
                handle.remove()

    def to_numpy(self, result: Any) -> np.ndarray[Any, Any]:
        return np.asarray(result.logits.numpy())

    def kept_bytes(self, result: Any) -> int:
        output, kept = result if isinstance(result, tuple) else (result, {})
        tensors = _tensors([output.logits, output.attentions, list(kept.values())])
        storages = (t.untyped_storage() for t in tensors)
        return _distinct_bytes((s.data_ptr(), s.nbytes()) for s in storages)


def load_huggingface(folder: Path, threads: int) -> Any:
    """Return the checkpoint as transformers' own model in float32, ready for inference."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Any: both packages are typed in part, and absent where only the linters are installed.
    logs: Any = logging
    logs.disable_progress_bar()
    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def disagreement(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return _tensors(list(value.values()))
    return [value] if hasattr(value, "untyped_storage") else []


def _owner(array: np.ndarray[Any, Any]) -> int:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def _distinct_bytes(arrays: Iterable[tuple[int, int]]) -> int:
    """Add up the sizes of distinct owners of memory; of views, the largest."""
    sizes: dict[int, int] = {}
    for owner, size in arrays:
        sizes[owner] = max(size, sizes.get(owner, 0))
    return sum(sizes.values())
