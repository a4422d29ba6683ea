"""GGUF files on the Hub: those in its cache, and headers read without the weights."""

from __future__ import annotations

import re
from pathlib import Path

from mi_ref.checkpoints.gguf.checkpoint import Shards, holds_gguf
from mi_ref.checkpoints.gguf.file import GgufFile, combine
from mi_ref.checkpoints.gguf.header import Header, MoreNeededError, read_header
from mi_ref.checkpoints.gguf.types import stored_types
from mi_ref.errors import HubError

_FIRST = 1 << 23
_COMMIT = re.compile("[0-9a-f]{40}")


def cached_gguf(name: str, revision: str | None, filename: str | None) -> Path | None:
    """Return the folder of a cached commit if it holds the model in GGUF that is meant."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    held = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    wanted = revision or constants.DEFAULT_REVISION
    reference = held / "refs" / wanted
    commit = reference.read_text().strip() if reference.is_file() else wanted
    folder = held / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    return folder if holds_gguf(cached_files(folder), filename) else None


def cached_files(folder: Path) -> frozenset[str]:
    """Return the files of a cached commit, by their names in the repository."""
    return frozenset(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def read_remote_headers(
    name: str, revision: str, token: bool | str | None, shards: Shards
) -> GgufFile:
    """Read the headers of files on the Hub, and no tensor.

    Parameters
    ----------
    name, revision, token
        The repository.
    shards : list of list of str
        Names of the files.

    Raises
    ------
    HubError
        If a file is in pieces, of which only the whole can be read.
    """
    from huggingface_hub import HfFileSystem

    if any(len(pieces) > 1 for pieces in shards):
        raise HubError(f"{shards[0][0]} of {name!r} is one of several pieces: load it instead.")
    system = HfFileSystem(token=token)
    files = [pieces[0] for pieces in shards]
    headers = [
        _header(system, f"{name}@{revision}/{file}", f"{file} of {name!r}") for file in files
    ]
    return combine(headers, [], files)


def _header(system: object, path: str, source: str) -> Header:
    opened = system.open(path, "rb", block_size=_FIRST)  # type: ignore[attr-defined]
    with opened as file:
        size, held = int(file.size), b""
        while True:
            held += file.read(max(_FIRST, len(held)))
            try:
                return read_header(held, size, stored_types(), source=source)
            except MoreNeededError:
                if len(held) >= size:  # read short, which the client should have said
                    raise HubError(f"{source} arrived cut short: run it again.") from None
