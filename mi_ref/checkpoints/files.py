"""A checkpoint's files: which ones are needed, which are the weights, and which are missing.

The rules are the same for a folder, the Hub and the Hub's cache.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.errors import HubError, WeightError

if TYPE_CHECKING:
    from mi_ref.checkpoints.gguf.model import GgufModel

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
{where} holds its weights only as pickles ({files}). {unsafe} If you trust the author, convert \
them once and pass the new folder:
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_pretrained({name!r}).save_pretrained('converted')
or let https://huggingface.co/spaces/safetensors/convert open a pull request on the Hub, and pass \
revision='refs/pr/N'."""
_RWKV_PICKLE = """\
{what}. {unsafe} Convert it once with the command below, which reads only tensors (pip install \
'mi_ref[convert]'), and pass the new folder:
{steps}    mi-ref convert-rwkv {path} {folder}"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one checkpoint, on this machine."""

    name: str
    """The name or path that the caller gave."""
    revision: str | None
    """Commit hash on the Hub; None for a folder or a bundled model."""
    config: Path
    weights: tuple[Path, ...]
    """Safetensors files, sorted by name; empty if `headers` is given instead."""
    weight_map: Mapping[str, str] | None
    """From tensor to file, from ``model.safetensors.index.json``; None without an index."""
    tokenizer: Path | None
    """``tokenizer.json``, which only text needs; None if there is none."""
    world: tuple[Path, ...]
    """Every ``rwkv_vocab_*.txt``, if there is no ``tokenizer.json``."""
    tokenizer_config: Path | None
    chat_templates: Mapping[str, Path]
    """``chat_template.jinja`` as ``"default"``, and those in ``additional_chat_templates``."""
    headers: Mapping[str, TensorInfo] | None
    """Dtype and shape of every tensor, if the weights themselves were not fetched from the Hub."""
    gguf: GgufModel | None = None
    """The opened model if it is in GGUF; `config` is the path of its first file then."""


@dataclass(frozen=True, slots=True)
class FileListing:
    """Which files a checkpoint has where it is kept, and how to fetch one."""

    name: str
    """The name or path that the caller gave."""
    where: str
    """The place, as messages name it."""
    held: frozenset[str]
    """The files it has."""
    fetch: Callable[[str], Path]
    """Returns the path of a file on this machine."""
    remedy: str = NEEDED
    """What to do about missing files."""
    revision: str | None = None
    partial: bool = False
    """Whether the checkpoint may have files that this place lacks, as a cache may."""

    def lacks(self, files: Iterable[str]) -> HubError:
        """Return the error for missing files."""
        names = sorted(self.held)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        holds = (", ".join(names[:10]) or "no files") + more
        return HubError(f"{self.where} lacks {', '.join(files)}; it holds {holds}. {self.remedy}")


def read_checkpoint(
    listing: FileListing, header: Callable[[str], dict[str, TensorInfo]] | None = None
) -> Checkpoint:
    """Check that every necessary file is there, then fetch them, small ones first."""
    if CONFIG not in listing.held:
        raise _only_rwkv_pickles(listing) or listing.lacks([CONFIG])
    names, weight_map = _weight_names(listing)
    config = listing.fetch(CONFIG)
    tokenizer, tokenizer_config = (
        listing.fetch(file) if file in listing.held else None for file in TOKENIZER
    )
    found = sorted(filter(WORLD.search, listing.held)) if tokenizer is None else []
    world = tuple(listing.fetch(file) for file in found)
    headers = None
    if header is not None:
        # Imported here because it is slow to import and local folders do not need it.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            headers = {key: of for part in pool.map(header, names) for key, of in part.items()}
    weights = () if header else tuple(listing.fetch(file) for file in names)
    # fmt: off
    return Checkpoint(
        listing.name, listing.revision, config, weights, weight_map, tokenizer, world,
        tokenizer_config, chat_templates(listing), headers,
    )
    # fmt: on


def chat_templates(listing: FileListing) -> dict[str, Path]:
    """Fetch the chat templates that have files to themselves, by name."""
    more = {file: re.fullmatch(rf"{MORE_TEMPLATES}/(.+)\.jinja", file) for file in listing.held}
    named = {match[1]: file for file, match in sorted(more.items()) if match}
    default = {"default": CHAT_TEMPLATE} if CHAT_TEMPLATE in listing.held else {}
    return {name: listing.fetch(file) for name, file in (default | named).items()}


def _weight_names(listing: FileListing) -> tuple[list[str], dict[str, str] | None]:
    """Choose the weight files: a single file, else those of an index, else a file by its suffix."""
    if SINGLE in listing.held:
        return [SINGLE], None
    if INDEX in listing.held:
        weight_map = _read_index(listing.fetch(INDEX))
        shards = sorted(set(weight_map.values()))
        if missing := [shard for shard in shards if shard not in listing.held]:
            raise listing.lacks(missing)
        return shards, weight_map
    found = [file for file in listing.held if file.endswith(".safetensors")]
    if len(found) == 1 and not _SHARD.search(found[0]):
        return found, None
    if found:
        raise listing.lacks([f"{INDEX}, which says which of the weight files belong to the model"])
    pickled = ", ".join(sorted(file for file in listing.held if _PICKLED.search(file)))
    if pickled and not listing.partial:
        raise _only_rwkv_pickles(listing) or WeightError(
            _PICKLES.format(where=listing.where, files=pickled, unsafe=_UNSAFE, name=listing.name)
        )
    raise listing.lacks([f"{SINGLE} (or {INDEX} and its shards)"])


def rwkv_pickle(what: str, path: Path, steps: str = "") -> WeightError | None:
    """Return the error for one of BlinkDL's checkpoints; None if `path` is not named like one.

    Parameters
    ----------
    what : str
        Where it was found, to begin the message with.
    path : Path
        The file.
    steps : str
        Shell commands to run before converting it.
    """
    if not _RWKV.search(path.name):
        return None
    paths = shlex.quote(str(path)), shlex.quote(path.stem)
    return WeightError(
        _RWKV_PICKLE.format(what=what, unsafe=_UNSAFE, steps=steps, path=paths[0], folder=paths[1])
    )


def _only_rwkv_pickles(listing: FileListing) -> WeightError | None:
    found = sorted(file for file in listing.held if _RWKV.search(file))
    whole = any(file.endswith(".safetensors") for file in listing.held)
    if not found or whole or listing.partial:
        return None
    what = f"{listing.where} holds its weights only as pickles ({', '.join(found)})"
    if listing.revision is None:
        return rwkv_pickle(what, listing.fetch(found[0]))
    download = f"hf download {listing.name} {shlex.quote(found[0])} --local-dir ."
    return rwkv_pickle(what, Path(found[0]), f"    {download}\n")


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightError(
            f"{path}: expected JSON with a 'weight_map' from tensor to file, got"
            f" {type(error).__name__}: {error}. Fetch it again."
        ) from error
    # A path could lead out of the folder, and a file of another format could be a pickle.
    if wrong := [file for file in files if not re.fullmatch(r"[^/\\]+\.safetensors", file)]:
        raise WeightError(
            f"{path}: expected .safetensors files in the same folder, got {', '.join(wrong)}."
            " Fetch it again."
        )
    if not files:
        raise WeightError(f"{path}: the 'weight_map' is empty. Fetch it again.")
    return dict(weight_map)
