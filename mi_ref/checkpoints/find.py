"""Finding a checkpoint's files: in a folder, a bundled model, or a Hugging Face Hub repository.

The `huggingface_hub` client downloads files, caches them, shows progress and logs in. Files are
fetched one by one at one commit, so that a push during the download cannot mix two versions, and a
cache with only part of a repository is not mistaken for all of it.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from mi_ref.checkpoints.files import (
    CONFIG,
    INDEX,
    MORE_TEMPLATES,
    NEEDED,
    SINGLE,
    TOKENIZER,
    Checkpoint,
    FileListing,
    read_checkpoint,
    rwkv_pickle,
)
from mi_ref.checkpoints.gguf.checkpoint import holds_gguf, local_listing, read_gguf_checkpoint
from mi_ref.checkpoints.gguf.hub import cached_files, cached_gguf, read_remote_headers
from mi_ref.checkpoints.gguf.packages import find_package
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.errors import HubError, MiRefError, WeightError

# Small files, one of which every repository has: GGUF repositories lack config.json.
_ANCHORS = CONFIG, ".gitattributes", "README.md"
_MODELS = Path(__file__).parents[1] / "models"

_LOGIN = "run `hf auth login` or pass token="
# By class name, because the client's HTTP library (httpx, httpx2) depends on its version.
_FAILURES = {
    "GatedRepoError": "{name!r} is gated: its owner must grant you access. Request it at"
    f" {{hub}}/{{name}}, then {_LOGIN} of the account that was granted access.",
    "RepositoryNotFoundError": "{hub} has no model {name!r} that you can read, and there is no such"
    f" folder here. Check the spelling ('org/name'); if it is private, {_LOGIN}.{{hint}}",
    "RevisionNotFoundError": "{name!r} has no revision {revision!r}: no branch, tag or commit has"
    " this name. Choose one from {hub}/{name}/commits/main, or leave revision= out.",
    "HFValidationError": "{name!r} is not a folder and cannot be the id of a Hub repository. Pass"
    " an existing folder or 'org/name'.{hint} ({said})",
    "401": f"{{hub}} refused the access token: {_LOGIN}. {{cached}} ({{said}})",
    "403": f"the access token is not allowed to read {{name!r}}: {_LOGIN} of another account."
    " ({said})",
    "429": "{hub} received too many requests: try again in a few minutes. {cached} ({said})",
    "HfHubHTTPError": "{hub} answered HTTP {status} for {name!r}: try again later. {cached}"
    " ({said})",
    "JSONDecodeError": "{hub} gave an answer for {name!r} that no Hub gives. Check HF_ENDPOINT, and"
    " whether the network requires a login page or a proxy. {cached} ({said})",
    "HTTPError": "the connection to {hub} failed while fetching {name!r} ({said}). Check the"
    " network and try again: complete files are kept. {cached}",
    "Exception": "{name!r} could not be fetched into the Hub cache {cache} ({said}). Check that it"
    " is writable and has space, or choose another with HF_HOME; then try again.",
}
_FAILURES["FileMetadataError"] = _FAILURES["JSONDecodeError"]
_FAILURES["ConnectionError"] = _FAILURES["TimeoutError"] = _FAILURES["HTTPError"]


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    headers_only: bool = False,
    filename: str | None = None,
) -> Checkpoint:
    """Find a checkpoint's files, downloading those on the Hub that are not cached.

    Parameters
    ----------
    name_or_path : str or path
        A folder (tried first), a bundled model such as ``"atlas"``, or a Hub repository such as
        ``"org/name"``. A path object always means a folder.
    revision : str, optional
        Branch, tag or commit of a Hub repository; its main branch by default.
    token : bool or str, optional
        Hub access token; by default that of ``hf auth login``, none if False.
    local_files_only : bool
        Use the Hub cache without the network, as with ``HF_HUB_OFFLINE=1``.
    headers_only : bool
        Fetch only tensor names, dtypes and shapes from the Hub, not the weights. Has no effect if
        the weights are on this machine: a folder, a bundled model, or with `local_files_only`.
    filename : str or None
        The GGUF file, if there are several.

    Raises
    ------
    HubError
        If files are missing or cannot be fetched.
    WeightError
        If the weights are pickled, or the index of shards or a header is damaged.
    """
    name = os.fspath(name_or_path)
    folder = _local(name)
    if folder is None and isinstance(name_or_path, str):
        folder = _bundled().get(name)
    package = None
    if folder is None and isinstance(name_or_path, str):
        package = find_package(name)
    if revision is not None and (folder is not None or package is not None):
        place = f"the folder {folder}" if package is None else package.where
        raise HubError(
            f"revision={revision!r} was given for {place}, but only Hub repositories"
            " have revisions. Leave it out."
        )
    if package is not None:
        return read_gguf_checkpoint(package, filename)
    if folder is not None and (found := _local_gguf(name, folder, filename)) is not None:
        return found
    if folder is not None and not folder.is_dir():
        raise rwkv_pickle(f"{name!r} is a pickle", folder) or HubError(
            f"{name!r} is a file; pass the folder that holds it: {str(folder.parent)!r}."
        )
    if folder is not None:
        remedy = f"{NEEDED} (Folders are tried before bundled models and the Hub.)"
        return read_checkpoint(
            FileListing(name, f"the folder {folder}", _files(folder), folder.joinpath, remedy)
        )
    if "://" in name:
        raise HubError(f"{name!r} is a URL; pass the repository's id, as in 'org/name'.")
    marks = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if not isinstance(name_or_path, str) or marks or not name or "\\" in name:
        raise HubError(
            f"there is no folder {name!r} (working directory: {Path.cwd()}). Pass an existing"
            f" folder, or a Hub repository as 'org/name'.{_bundled_hint(name)}"
        )
    return _from_hub(name, revision, token, local_files_only, headers_only, filename)


def _local_gguf(name: str, path: Path, filename: str | None) -> Checkpoint | None:
    """Return the model in a GGUF file, or in the one of a folder; None if neither is meant."""
    if path.is_file() and ".gguf" in path.name.lower():
        return read_gguf_checkpoint(local_listing(path.parent, name), path.name)
    if path.is_dir() and holds_gguf(_files(path), filename):
        return read_gguf_checkpoint(local_listing(path, name), filename)
    return None


def _local(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or the ~ of an unknown user
        return None


def _files(folder: Path) -> frozenset[str]:
    found = [*folder.iterdir(), *(folder / MORE_TEMPLATES).glob("*.jinja")]
    return frozenset(path.relative_to(folder).as_posix() for path in found if path.is_file())


def _bundled() -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(_MODELS.glob(f"*/{CONFIG}"))}


def _bundled_hint(name: str) -> str:
    names = list(_bundled())
    close = difflib.get_close_matches(name, names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f" Bundled models: {', '.join(names)}.{meant}" if names else ""


def _from_hub(
    name: str,
    revision: str | None,
    token: bool | str | None,
    cached: bool,
    headers_only: bool,
    filename: str | None,
) -> Checkpoint:
    """Turn every failure of the client into a HubError that says what to do."""
    from huggingface_hub import constants, errors

    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        if cached or constants.HF_HUB_OFFLINE:
            return _from_cache(name, revision, filename)
        return _from_network(name, revision, token, headers_only, filename)
    except MiRefError:
        raise
    except (
        http_error,
        OSError,
        RuntimeError,  # from the client's compiled part
        json.JSONDecodeError,
        errors.EntryNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise HubError(_explain(error, name, revision, filename)) from error


def _from_cache(name: str, revision: str | None, filename: str | None = None) -> Checkpoint:
    from huggingface_hub import constants, try_to_load_from_cache

    remedy = "Load it once with a network, without local_files_only=True or HF_HUB_OFFLINE=1."
    if (folder := cached_gguf(name, revision, filename)) is not None:
        where = f"the cached copy of {name!r} (commit {folder.name})"
        held = cached_files(folder)
        commit = folder.name
        listing = FileListing(name, where, held, folder.joinpath, remedy, commit, partial=True)
        return read_gguf_checkpoint(listing, filename)
    for file in (CONFIG, SINGLE, INDEX, *TOKENIZER):
        path = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str):
            folder, commit = Path(path).parent, Path(path).parent.name
            where, held = f"the cached copy of {name!r} (commit {commit})", _files(folder)
            return read_checkpoint(
                FileListing(name, where, held, folder.joinpath, remedy, commit, partial=True)
            )
    raise HubError(
        f"{name!r} at revision {revision or 'main'!r} is not in the Hub cache"
        f" ({constants.HF_HUB_CACHE}). {remedy}{_bundled_hint(name)}"
    )


def _from_network(
    name: str,
    revision: str | None,
    token: bool | str | None,
    headers_only: bool,
    filename: str | None,
) -> Checkpoint:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import SafetensorsParsingError

    api, timeout = HfApi(token=token), constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(name, revision=revision, timeout=timeout)
    commit = info.sha or ""
    listed = {file.rfilename for file in info.siblings or ()}
    if anchor := next((file for file in _ANCHORS if file in listed), None):
        # By branch rather than commit: only then does the client record the branch's commit,
        # without which it finds nothing in its cache offline.
        commit = Path(api.hf_hub_download(name, anchor, revision=revision)).parent.name
        if commit != info.sha:
            info = api.model_info(name, revision=commit, timeout=timeout)
    files = [file.rfilename for file in info.siblings or ()]
    held = frozenset(file for file in files if file.rpartition("/")[0] in ("", MORE_TEMPLATES))

    def fetch(file: str) -> Path:
        return Path(api.hf_hub_download(name, file, revision=commit))

    def header(file: str) -> dict[str, TensorInfo]:
        try:
            found = api.parse_safetensors_file_metadata(name, file, revision=commit).tensors
        except SafetensorsParsingError as error:
            raise WeightError(f"{file} of {name!r} is not a safetensors file: {error}") from error
        return {tensor: TensorInfo(of.dtype, tuple(of.shape)) for tensor, of in found.items()}

    where = f"the Hub repository {name!r} ({commit})"
    listing = FileListing(name, where, held, fetch, revision=commit)
    if holds_gguf(files, filename):
        listing = replace(listing, held=frozenset(files))
        remote = partial(read_remote_headers, name, commit, token) if headers_only else None
        return read_gguf_checkpoint(listing, filename, header=remote)
    return read_checkpoint(listing, header if headers_only else None)


def _explain(error: BaseException, name: str, revision: str | None, filename: str | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if kinds[0] == "HfHubHTTPError":
        kinds.insert(0, str(status))
    try:
        found = _from_cache(name, revision, filename)
        cached = f"Or pass local_files_only=True: commit {found.revision} is cached completely."
    except (MiRefError, ValueError):
        cached = "Not all of its files are cached, so local_files_only=True would not help."
    return next(_FAILURES[kind] for kind in kinds if kind in _FAILURES).format(
        name=name,
        revision=revision,
        hub=constants.ENDPOINT,
        cache=constants.HF_HUB_CACHE,
        said=f"{type(error).__name__}: {' '.join(str(error).split()) or 'no details'}",
        hint=_bundled_hint(name),
        status=status,
        cached=cached,
    )
