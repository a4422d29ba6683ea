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
    if any(len(pieces) > 1 for pieces in shards):
        raise HubError(f"{shards[0][0]} of {name!r} is one of several pieces: load it instead.")
    files = [pieces[0] for pieces in shards]
    return combine([_header(name, revision, token, file) for file in files], [], files)


def _header(name: str, revision: str, token: bool | str | None, file: str) -> Header:
    source, held, size = f"{file} of {name!r}", b"", 1
    while len(held) < size:
        count = max(_FIRST, len(held))
        part, size = _fetch(name, revision, token, file, len(held), len(held) + count)
        held += part
        try:
            return read_header(held, size, stored_types(), source=source)
        except MoreNeededError:
            if not part:
                break
    raise HubError(f"the header of {source} arrived incomplete. Run it again.")


def _fetch(
    name: str, revision: str, token: bool | str | None, file: str, start: int, stop: int
) -> tuple[bytes, int]:
    """Return some bytes of a file, and the number of all its bytes."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported, but not declared so
        build_hf_headers,
        hf_raise_for_status,
    )

    headers = {**build_hf_headers(token=token), "range": f"bytes={start}-{stop - 1}"}
    url = hf_hub_url(name, file, revision=revision, endpoint=constants.ENDPOINT)
    answer = get_session().get(url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
    hf_raise_for_status(answer)
    total = answer.headers.get("content-range", "").rpartition("/")[2]
    return answer.content, int(total) if total.isdigit() else len(answer.content)
