"""Finding a checkpoint's files: a folder, a bundled model, or a Hugging Face Hub repository.

Downloads, their cache, progress bars and login are those of the `huggingface_hub` client. Files are
asked for one by one at one commit: a push during the download cannot mix two versions, and a
cache that holds only part of a repository is told from a whole one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mi_ref.errors import HubError, MiRefError, WeightError
from mi_ref.weights import TensorInfo

_MODELS = Path(__file__).parent / "models"
_CONFIG, _SINGLE, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZER = "tokenizer.json", "tokenizer_config.json"
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
_PICKLED = re.compile(r"^pytorch_model.*\.bin$|\.(pt|pth|ckpt)$")

_NEEDED = (
    "A checkpoint needs config.json and safetensors weights: model.safetensors, or"
    " model.safetensors.index.json with every shard it names."
)
_PICKLES = """\
{where} holds its weights only as pickles ({files}). Reading a pickle can run any code hidden in \
it, so only safetensors are read. If you trust its author, convert it once and pass the new folder:
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_pretrained({name!r}).save_pretrained('converted')
or let https://huggingface.co/spaces/safetensors/convert open a pull request on the Hub, and pass \
revision='refs/pr/N'."""

_LOGIN = "run `hf auth login` or pass token="
# By class name, because the client's HTTP library (httpx, httpx2) differs by version.
_FAILURES = {
    "GatedRepoError": "{name!r} is gated: its owner must grant you access. Ask for it at"
    f" {{hub}}/{{name}}, then {_LOGIN} of the account that was granted it.",
    "RepositoryNotFoundError": "{hub} has no model {name!r} that you can read, and no such folder"
    f" exists here. Check the spelling ('org/name'); if it is private, {_LOGIN}.{{hint}}",
    "RevisionNotFoundError": "{name!r} has no revision {revision!r}: no branch, tag or commit is"
    " named so. Choose one from {hub}/{name}/commits/main, or leave revision= out.",
    "HFValidationError": "{name!r} is no folder and cannot be the id of a Hub repository. Pass an"
    " existing folder or 'org/name'.{hint} ({said})",
    "401": f"{{hub}} refused the access token: {_LOGIN}. {{cached}} ({{said}})",
    "403": f"the access token does not allow to read {{name!r}}: {_LOGIN} of another. ({{said}})",
    "429": "{hub} got too many requests: run it again in some minutes. {cached} ({said})",
    "HfHubHTTPError": "{hub} answered HTTP {status} for {name!r}: run it again later. {cached}"
    " ({said})",
    "JSONDecodeError": "{hub} answered for {name!r} as no Hub does. Check HF_ENDPOINT, and whether"
    " the network wants a login page or a proxy. {cached} ({said})",
    "HTTPError": "the connection to {hub} failed while fetching {name!r} ({said}). Check the"
    " network and run it again: files that arrived whole are kept. {cached}",
    "Exception": "{name!r} could not be fetched into the Hub cache {cache} ({said}). Check that it"
    " can be written and has room, or choose another with HF_HOME; then run it again.",
}
_FAILURES["FileMetadataError"] = _FAILURES["JSONDecodeError"]
_FAILURES["ConnectionError"] = _FAILURES["TimeoutError"] = _FAILURES["HTTPError"]


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
    tokenizer_config: Path | None
    headers: Mapping[str, TensorInfo] | None
    """Dtype and shape of every tensor, if only these were fetched from the Hub."""


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    headers_only: bool = False,
) -> Checkpoint:
    """Find a checkpoint's files, downloading what is on the Hub and not yet cached.

    Parameters
    ----------
    name_or_path : str or path
        A folder (looked for first), a bundled model such as ``"atlas"``, or a Hub repository such
        as ``"org/name"``. A path object is always a folder.
    revision : str, optional
        Branch, tag or commit of a Hub repository; its main branch by default.
    token : bool or str, optional
        Hub access token; by default that of ``hf auth login``, none if False.
    local_files_only : bool
        Use the Hub cache and no network, as with ``HF_HUB_OFFLINE=1``.
    headers_only : bool
        Fetch tensor names, dtypes and shapes from the Hub, but no weights. Changes nothing where
        the weights are on this machine: a folder, a bundled model, or with `local_files_only`.

    Raises
    ------
    HubError
        If files are missing or cannot be fetched.
    WeightError
        If the weights are pickled, or the index of the shards or a header is damaged.
    """
    name = os.fspath(name_or_path)
    folder = _local(name)
    if folder is None and isinstance(name_or_path, str):
        folder = _bundled().get(name)
    if folder is not None and not folder.is_dir():
        raise HubError(
            f"{name!r} is a file; pass the folder that holds it: {str(folder.parent)!r}."
        )
    if folder is not None and revision is not None:
        raise HubError(
            f"revision={revision!r} was given for the folder {folder}: only Hub repositories have"
            " revisions. Leave it out."
        )
    if folder is not None:
        remedy = f"{_NEEDED} (A folder is looked for before bundled models and the Hub.)"
        return _read(_Source(name, f"the folder {folder}", _files(folder), folder.joinpath, remedy))
    if "://" in name:
        raise HubError(f"{name!r} is an address; pass the repository's id, as in 'org/name'.")
    marks = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if not isinstance(name_or_path, str) or marks or not name or "\\" in name:
        raise HubError(
            f"there is no folder {name!r} (working directory: {Path.cwd()}). Pass an existing"
            f" folder, or a Hub repository as 'org/name'.{_bundled_hint(name)}"
        )
    return _from_hub(name, revision, token, local_files_only, headers_only)


@dataclass(frozen=True, slots=True)
class _Source:
    """The files of one checkpoint before they are fetched."""

    name: str
    where: str
    held: frozenset[str]
    fetch: Callable[[str], Path]
    remedy: str = _NEEDED
    revision: str | None = None
    partial: bool = False
    """Whether files that are not held may exist elsewhere."""

    def lacks(self, files: Iterable[str]) -> HubError:
        names = sorted(self.held)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        holds = (", ".join(names[:10]) or "no files") + more
        return HubError(f"{self.where} lacks {', '.join(files)}; it holds {holds}. {self.remedy}")


def _local(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or ~ of a user who does not exist
        return None


def _files(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir() if path.is_file())


def _bundled() -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(_MODELS.glob(f"*/{_CONFIG}"))}


def _bundled_hint(name: str) -> str:
    names = list(_bundled())
    close = difflib.get_close_matches(name, names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f" Bundled models: {', '.join(names)}.{meant}" if names else ""


def _from_hub(
    name: str, revision: str | None, token: bool | str | None, cached: bool, headers_only: bool
) -> Checkpoint:
    """Turn every failure of the client into one HubError that says what to do."""
    from huggingface_hub import constants, errors

    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        if cached or constants.HF_HUB_OFFLINE:
            return _from_cache(name, revision)
        return _from_network(name, revision, token, headers_only)
    except MiRefError:
        raise
    except (
        http_error,
        OSError,
        RuntimeError,  # of the client's compiled part
        json.JSONDecodeError,
        errors.EntryNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise HubError(_explain(error, name, revision)) from error


def _from_cache(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import constants, try_to_load_from_cache

    remedy = "Load it once with a network, without local_files_only=True or HF_HUB_OFFLINE=1."
    for file in (_CONFIG, _SINGLE, _INDEX, *_TOKENIZER):
        path = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str):
            folder = Path(path).parent
            where = f"the cached copy of {name!r} (commit {folder.name})"
            held, commit = _files(folder), folder.name
            return _read(_Source(name, where, held, folder.joinpath, remedy, commit, partial=True))
    raise HubError(
        f"{name!r} at revision {revision or 'main'!r} is not in the Hub cache"
        f" ({constants.HF_HUB_CACHE}). {remedy}{_bundled_hint(name)}"
    )


def _from_network(
    name: str, revision: str | None, token: bool | str | None, headers_only: bool
) -> Checkpoint:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import SafetensorsParsingError

    api, timeout = HfApi(token=token), constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(name, revision=revision, timeout=timeout)
    commit = info.sha or ""
    if any(file.rfilename == _CONFIG for file in info.siblings or ()):
        # By branch, not by commit: the client notes which commit a branch is at only then, and
        # without that note it finds nothing in its cache offline.
        commit = Path(api.hf_hub_download(name, _CONFIG, revision=revision)).parent.name
        if commit != info.sha:
            info = api.model_info(name, revision=commit, timeout=timeout)
    held = frozenset(file.rfilename for file in info.siblings or () if "/" not in file.rfilename)

    def fetch(file: str) -> Path:
        return Path(api.hf_hub_download(name, file, revision=commit))

    def header(file: str) -> dict[str, TensorInfo]:
        try:
            found = api.parse_safetensors_file_metadata(name, file, revision=commit).tensors
        except SafetensorsParsingError as error:
            raise WeightError(f"{file} of {name!r} is no safetensors file: {error}") from error
        return {tensor: TensorInfo(of.dtype, tuple(of.shape)) for tensor, of in found.items()}

    source = _Source(name, f"the Hub repository {name!r} ({commit})", held, fetch, revision=commit)
    return _read(source, header if headers_only else None)


def _explain(error: BaseException, name: str, revision: str | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if kinds[0] == "HfHubHTTPError":
        kinds.insert(0, str(status))
    try:
        found = _from_cache(name, revision)
        cached = (
            f"Or pass local_files_only=True: commit {found.revision} is in the cache, complete."
        )
    except (MiRefError, ValueError):
        cached = "The cache lacks files of it, so local_files_only=True cannot help."
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


def _read(
    source: _Source, header: Callable[[str], dict[str, TensorInfo]] | None = None
) -> Checkpoint:
    """Check that every file needed is held, then fetch them, small ones first."""
    if _CONFIG not in source.held:
        raise source.lacks([_CONFIG])
    names, weight_map = _weight_names(source)
    config = source.fetch(_CONFIG)
    tokenizer, tokenizer_config = (
        source.fetch(file) if file in source.held else None for file in _TOKENIZER
    )
    weights: tuple[Path, ...] = ()
    headers = None
    if header is None:
        weights = tuple(source.fetch(file) for file in names)
    else:
        with ThreadPoolExecutor(8) as pool:
            headers = {key: of for part in pool.map(header, names) for key, of in part.items()}
    return Checkpoint(
        source.name,
        source.revision,
        config,
        weights,
        weight_map,
        tokenizer,
        tokenizer_config,
        headers,
    )


def _weight_names(source: _Source) -> tuple[list[str], dict[str, str] | None]:
    """Choose the weight files: a single file before an index before a file of another name."""
    if _SINGLE in source.held:
        return [_SINGLE], None
    if _INDEX in source.held:
        weight_map = _read_index(source.fetch(_INDEX))
        shards = sorted(set(weight_map.values()))
        if missing := [shard for shard in shards if shard not in source.held]:
            raise source.lacks(missing)
        return shards, weight_map
    found = [file for file in source.held if file.endswith(".safetensors")]
    if len(found) == 1 and not _SHARD.search(found[0]):
        return found, None
    if found:
        raise source.lacks([f"{_INDEX}, which says which of the weight files belong to the model"])
    pickled = ", ".join(sorted(file for file in source.held if _PICKLED.search(file)))
    if pickled and not source.partial:
        raise WeightError(_PICKLES.format(where=source.where, files=pickled, name=source.name))
    raise source.lacks([f"{_SINGLE} (or {_INDEX} and its shards)"])


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightError(f"{path} is not valid JSON: {error}. Fetch the file again.") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightError(
            f"{path} has no 'weight_map', so nothing says which file holds which tensor."
            " Fetch the file again."
        )
    for name, file in weight_map.items():
        # A path could point out of the folder; a file of another format could be a pickle.
        if not isinstance(file, str) or not re.fullmatch(r"[^/\\]+\.safetensors", file):
            raise WeightError(
                f"{path} puts {name!r} into {file!r}; a shard is a .safetensors file beside it."
            )
    return weight_map
