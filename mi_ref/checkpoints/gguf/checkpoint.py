"""Which of a place's files are a model in GGUF, and that model, opened.

The rules are the same wherever the files are: a folder, an installed package, or the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from mi_ref.checkpoints.files import TOKENIZER, Checkpoint, FileListing, chat_templates
from mi_ref.checkpoints.gguf.file import GgufFile, open_gguf
from mi_ref.checkpoints.gguf.model import open_model
from mi_ref.errors import HubError

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_PIECE = re.compile(r"(.*\.gguf)\.part-?(\d+)", re.IGNORECASE)
# Parts of a multimodal model, and what quantisation was weighted by: no language models.
_BESIDE = re.compile(r"(^|[/-])(mmproj|imatrix)[^/]*$", re.IGNORECASE)

Shards = list[list[str]]
"""Names of a model's shards in order, each as the pieces that it was cut into."""


def holds_gguf(files: Collection[str], filename: str | None) -> bool:
    """Whether a model in GGUF is meant: one is asked for, or there are no other weights."""
    if filename is not None:
        return True
    whole = any(file.endswith(".safetensors") for file in files)
    return not whole and any(_is_gguf(file) for file in files)


def read_gguf_checkpoint(
    listing: FileListing,
    filename: str | None = None,
    *,
    header: Callable[[Shards], GgufFile] | None = None,
) -> Checkpoint:
    """Choose a place's GGUF file, fetch it, and open it.

    Parameters
    ----------
    listing : FileListing
        The place.
    filename : str or None
        Which file, where there are several.
    header : callable or None
        Reads headers alone, given the names of the files; None to fetch these whole.

    Raises
    ------
    HubError
        If there is none, or several and `filename` names none of them.
    """
    shards = _chosen(listing, filename)
    first = shards[0][0]
    paths = [[listing.fetch(piece) for piece in shard] for shard in shards] if not header else []
    file = open_gguf(paths) if header is None else header(shards)
    path = paths[0][0] if paths else Path(first)
    tokenizer, tokenizer_config = (
        listing.fetch(file) if file in listing.held else None for file in TOKENIZER
    )
    return Checkpoint(
        name=listing.name,
        revision=listing.revision,
        config=path,
        weights=(),
        weight_map=None,
        tokenizer=tokenizer,
        world=(),
        tokenizer_config=None if tokenizer is None else tokenizer_config,
        chat_templates=chat_templates(listing),
        headers=None,
        gguf=open_model(file, source=str(path) if paths else f"{first} of {listing.name!r}"),
    )


def _is_gguf(file: str) -> bool:
    kind = file.lower().endswith(".gguf") or _PIECE.fullmatch(file) is not None
    return kind and _BESIDE.search(file) is None


def _chosen(listing: FileListing, filename: str | None) -> Shards:
    models: dict[str, list[str]] = {}
    asked = None
    for file in sorted(listing.held):
        if _is_gguf(file) or file == filename:
            shard = _SHARD.fullmatch(file)
            piece = _PIECE.fullmatch(file)
            key = shard[1] if shard else piece[1] if piece else file
            models.setdefault(key, []).append(file)
            asked = key if filename in (file, key) else asked
    if filename is None and len(models) == 1:
        asked = next(iter(models))
    if asked is not None:
        return _ordered(listing, models[asked])
    listed = ", ".join(files[0] for files in models.values())
    if filename is not None:
        raise HubError(
            f"{listing.where} holds no {filename!r}; its GGUF files: {listed or 'none'}. Pass"
            " filename= as it is written there."
        )
    if not models:
        raise listing.lacks(["a .gguf file"])
    raise HubError(
        f"{listing.where} holds {len(models)} models in GGUF: {listed}. Choose one with filename=,"
        f" as in filename={next(iter(models.values()))[0]!r}."
    )


def _ordered(listing: FileListing, files: list[str]) -> Shards:
    """Return a model's files in their order, all of which must be there."""
    if shard := _SHARD.fullmatch(files[0]):
        count = int(shard[3])
        numbered = [f"{shard[1]}-{n:05}-of-{count:05}{files[0][-5:]}" for n in range(1, count + 1)]
        if count > 10_000 or (missing := [file for file in numbered if file not in files]):
            raise listing.lacks(missing[:8] if count <= 10_000 else ["most of its shards"])
        return [[file] for file in numbered]
    pieces = {int(match[2]): file for file in files if (match := _PIECE.fullmatch(file))}
    if not pieces:
        return [files]
    order = sorted(pieces)
    if order not in (list(range(len(order))), list(range(1, len(order) + 1))):
        raise HubError(
            f"{listing.where} holds pieces {', '.join(map(str, order))} of {files[0]}: some are"
            " missing. Fetch them all."
        )
    return [[pieces[number] for number in order]]


def local_listing(path: Path, name: str) -> FileListing:
    """Return a folder as a place to look for GGUF files in."""
    files = frozenset(file.name for file in path.iterdir() if file.is_file())
    return FileListing(name, f"the folder {path}", files, path.joinpath)


def mapped_listing(name: str, where: str, files: Mapping[str, Path]) -> FileListing:
    """Return files from several folders as one place."""
    return FileListing(name, where, frozenset(files), partial(_pick, files))


def _pick(files: Mapping[str, Path], name: str) -> Path:
    return files[name]
