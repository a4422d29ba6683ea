"""A checkpoint's files: which are needed, which of several are the weights, and what is missing.

The rules are the same wherever the files are: a folder, the Hub, or the Hub's cache.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mi_ref.errors import HubError, WeightError
from mi_ref.weights import TensorInfo

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json", "tokenizer_config.json"
WORLD = re.compile(r"^rwkv_vocab_.*\.txt$")
CHAT_TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
_PICKLED = re.compile(r"^pytorch_model.*\.bin$|\.(pt|pth|ckpt)$")
_RWKV = re.compile(r"rwkv.*\.pth$", re.IGNORECASE)

NEEDED = (
    "A checkpoint needs config.json and safetensors weights: model.safetensors, or"
    " model.safetensors.index.json with every shard it names."
)
_UNSAFE = "Reading a pickle can run any code hidden in it, so only safetensors are read."
_PICKLES = """\
{where} holds its weights only as pickles ({files}). {unsafe} If you trust its author, convert it \
once and pass the new folder:
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_pretrained({name!r}).save_pretrained('converted')
or let https://huggingface.co/spaces/safetensors/convert open a pull request on the Hub, and pass \
revision='refs/pr/N'."""
_RWKV_PICKLE = """\
{what}. {unsafe} Convert it once, which reads tensors and nothing else (pip install \
'mi_ref[convert]'), and pass the new folder:
{steps}    mi-ref convert-rwkv {path} {folder}"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one checkpoint, on this machine."""

    name: str
    """As the caller gave it."""
    revision: str | None
    """Commit hash on the Hub; None for a folder or a bundled model."""
    config: Path
    weights: tuple[Path, ...]
    """Safetensors files in the order of their names; empty if `headers` is given instead."""
    weight_map: Mapping[str, str] | None
    """Tensor name to file name, from ``model.safetensors.index.json``; None without an index."""
    tokenizer: Path | None
    """``tokenizer.json``; None where there is none, which only text needs."""
    world: tuple[Path, ...]
    """Every ``rwkv_vocab_*.txt``, where there is no ``tokenizer.json``."""
    tokenizer_config: Path | None
    chat_templates: Mapping[str, Path]
    """``chat_template.jinja`` as ``"default"``, and those of ``additional_chat_templates``."""
    headers: Mapping[str, TensorInfo] | None
    """Dtype and shape of every tensor, if only these were fetched from the Hub."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The files of one checkpoint before they are fetched."""

    name: str
    where: str
    held: frozenset[str]
    fetch: Callable[[str], Path]
    remedy: str = NEEDED
    revision: str | None = None
    partial: bool = False
    """Whether files that are not held may exist elsewhere."""

    def lacks(self, files: Iterable[str]) -> HubError:
        """Return the error for files that are not held."""
        names = sorted(self.held)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        holds = (", ".join(names[:10]) or "no files") + more
        return HubError(f"{self.where} lacks {', '.join(files)}; it holds {holds}. {self.remedy}")


def read_checkpoint(
    holding: Holding, header: Callable[[str], dict[str, TensorInfo]] | None = None
) -> Checkpoint:
    """Check that every file needed is held, then fetch them, small ones first."""
    if CONFIG not in holding.held:
        raise _only_rwkv_pickles(holding) or holding.lacks([CONFIG])
    names, weight_map = _weight_names(holding)
    config = holding.fetch(CONFIG)
    tokenizer, tokenizer_config = (
        holding.fetch(file) if file in holding.held else None for file in TOKENIZER
    )
    found = sorted(filter(WORLD.search, holding.held)) if tokenizer is None else []
    world = tuple(holding.fetch(file) for file in found)
    headers = None
    if header is not None:
        # Not at the top: local folders need no threads, and its import is slow.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            headers = {key: of for part in pool.map(header, names) for key, of in part.items()}
    weights = () if header else tuple(holding.fetch(file) for file in names)
    # fmt: off
    return Checkpoint(
        holding.name, holding.revision, config, weights, weight_map, tokenizer, world,
        tokenizer_config, _chat_templates(holding), headers,
    )
    # fmt: on


def _chat_templates(holding: Holding) -> dict[str, Path]:
    more = {file: re.fullmatch(rf"{MORE_TEMPLATES}/(.+)\.jinja", file) for file in holding.held}
    named = {match[1]: file for file, match in sorted(more.items()) if match}
    default = {"default": CHAT_TEMPLATE} if CHAT_TEMPLATE in holding.held else {}
    return {name: holding.fetch(file) for name, file in (default | named).items()}


def _weight_names(holding: Holding) -> tuple[list[str], dict[str, str] | None]:
    """Choose the weight files: a single file before an index before a file of another name."""
    if SINGLE in holding.held:
        return [SINGLE], None
    if INDEX in holding.held:
        weight_map = _read_index(holding.fetch(INDEX))
        shards = sorted(set(weight_map.values()))
        if missing := [shard for shard in shards if shard not in holding.held]:
            raise holding.lacks(missing)
        return shards, weight_map
    found = [file for file in holding.held if file.endswith(".safetensors")]
    if len(found) == 1 and not _SHARD.search(found[0]):
        return found, None
    if found:
        raise holding.lacks([f"{INDEX}, which says which of the weight files belong to the model"])
    pickled = ", ".join(sorted(file for file in holding.held if _PICKLED.search(file)))
    if pickled and not holding.partial:
        raise _only_rwkv_pickles(holding) or WeightError(
            _PICKLES.format(where=holding.where, files=pickled, unsafe=_UNSAFE, name=holding.name)
        )
    raise holding.lacks([f"{SINGLE} (or {INDEX} and its shards)"])


def rwkv_pickle(what: str, path: Path, steps: str = "") -> WeightError | None:
    """Return the error for BlinkDL's checkpoint `path`; None if its name says of no such one.

    `what` says where it turned up, `steps` are lines of shell that come first.
    """
    if not _RWKV.search(path.name):
        return None
    paths = shlex.quote(str(path)), shlex.quote(path.stem)
    return WeightError(
        _RWKV_PICKLE.format(what=what, unsafe=_UNSAFE, steps=steps, path=paths[0], folder=paths[1])
    )


def _only_rwkv_pickles(holding: Holding) -> WeightError | None:
    found = sorted(file for file in holding.held if _RWKV.search(file))
    whole = any(file.endswith(".safetensors") for file in holding.held)
    if not found or whole or holding.partial:
        return None
    what = f"{holding.where} holds its weights only as pickles ({', '.join(found)})"
    if holding.revision is None:
        return rwkv_pickle(what, holding.fetch(found[0]))
    download = f"hf download {holding.name} {shlex.quote(found[0])} --local-dir ."
    return rwkv_pickle(what, Path(found[0]), f"    {download}\n")


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightError(
            f"{path} is no index of shards ({type(error).__name__}: {error}). It needs to be JSON"
            " with a 'weight_map' from tensor to file; fetch it again."
        ) from error
    # A path could point out of the folder; a file of another format could be a pickle.
    if wrong := [file for file in files if not re.fullmatch(r"[^/\\]+\.safetensors", file)]:
        raise WeightError(
            f"{path} names {', '.join(wrong)}; a shard is a .safetensors file in the same folder."
        )
    if not files:
        raise WeightError(f"the 'weight_map' of {path} is empty; fetch the index again.")
    return dict(weight_map)
