"""Finding checkpoints: folders, bundled models, and the real Hub client against a local server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hub_server import HubServer, Repo
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
from safetensors.numpy import save

from mi_ref import hub
from mi_ref.errors import HubError, WeightError
from mi_ref.hub import find_checkpoint
from mi_ref.weights import TensorInfo, Weights

CONFIG = b'{"model_type": "toy"}'
SMALL = {"config.json": CONFIG, "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}
WEIGHTS = save({"w": np.ones((2, 3), np.float32)})
BIG = save({"w": np.zeros((1000, 1000), np.float32), "b": np.zeros(5, np.float16)})
SHARDS = {
    "model-00001-of-00002.safetensors": save({"a": np.ones(2, np.float32)}),
    "model-00002-of-00002.safetensors": save({"b": np.ones(3, np.float32)}),
}
WEIGHT_MAP = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": WEIGHT_MAP}).encode()}


TEMPLATES = {
    "chat_template.jinja": b"plain",
    "additional_chat_templates/tool_use.jinja": b"tools",
    "additional_chat_templates/README.md": b"about them",
    "other/notes.jinja": b"of something else",
}


def repos() -> dict[str, Repo]:
    single = {**SMALL, "model.safetensors": WEIGHTS}
    return {
        "org/one": Repo({**single, "README.md": b"hello", "onnx/model.onnx": b"other format"}),
        "org/two": Repo({**SMALL, **INDEX, **SHARDS}),
        "org/big": Repo({**SMALL, "model.safetensors": BIG}),
        "org/chat": Repo({**single, **TEMPLATES}),
        "org/gated": Repo(single, gated=True),
        "org/no-config": Repo({"model.safetensors": WEIGHTS}),
        "org/pickled": Repo({**SMALL, "pytorch_model.bin": b"pickle"}),
        "org/short": Repo({**SMALL, **INDEX}),
        "org/cut": Repo(single, interrupted=frozenset({"model.safetensors"})),
        "org/broken": Repo(single, status=502),
        "org/refused": Repo(single, status=403),
        "org/portal": Repo(single, page=b"<html>log in</html>"),
        "org/damaged": Repo({**SMALL, "model.safetensors": b"no safetensors" * 20}),
    }


@pytest.fixture(autouse=True)
def _clean_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the client an empty cache, no login, no server and no pauses between its retries."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(hub, "_MODELS", tmp_path / "models")
    point_to(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    disable_progress_bars()
    yield
    enable_progress_bars()
    huggingface_hub.close_session()


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(repos()) as running:
        point_to(monkeypatch, running.url)
        yield running


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# Downloads


def test_download_of_a_single_file(server: HubServer) -> None:
    found = find_checkpoint("org/one")
    assert found.name == "org/one"
    assert found.revision == server.repos["org/one"].commit
    assert found.config.read_bytes() == CONFIG
    assert [path.read_bytes() for path in found.weights] == [WEIGHTS]
    assert (found.weight_map, found.headers) == (None, None)
    assert found.tokenizer is not None
    assert found.tokenizer_config is not None
    assert server.fetched("README.md") == []


def test_download_of_shards(server: HubServer) -> None:
    found = find_checkpoint("org/two")
    assert [path.name for path in found.weights] == sorted(SHARDS)
    assert found.weight_map == WEIGHT_MAP
    assert {name: info.shape for name, info in Weights(found.weights).info.items()} == {
        "a": (2,),
        "b": (3,),
    }
    assert len({path.parent for path in (*found.weights, found.config)}) == 1


def test_second_call_fetches_no_file_again(server: HubServer) -> None:
    first = find_checkpoint("org/two")
    server.requests.clear()
    assert find_checkpoint("org/two") == first
    assert [of for of in server.requests if of.method == "GET" and "/resolve/" in of.path] == []


@pytest.mark.parametrize("asked", ["model_info", "hf_hub_download"])
def test_push_during_the_download_mixes_no_versions(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    answer = getattr(huggingface_hub.HfApi, asked)
    repo = server.repos["org/one"]
    old, pushed = repo.commit, {**SMALL, **INDEX, **SHARDS, "config.json": b"{}"}

    def push_afterwards(*args: object, **options: object) -> object:
        answered = answer(*args, **options)
        repo.push(pushed)
        return answered

    monkeypatch.setattr(huggingface_hub.HfApi, asked, push_afterwards)
    found = find_checkpoint("org/one")
    # A push before the first file was fetched is taken, one after it is not.
    assert found.revision == (repo.commit if asked == "model_info" else old)
    assert len(found.weights) == (2 if asked == "model_info" else 1)
    assert {path.parent.name for path in (found.config, *found.weights)} == {found.revision}


@pytest.mark.parametrize("by_commit", [False, True])
def test_cache_serves_offline_what_was_loaded_once(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, by_commit: bool
) -> None:
    revision = server.repos["org/two"].commit if by_commit else None
    online = find_checkpoint("org/two", revision=revision)
    count = len(server.requests)
    assert find_checkpoint("org/two", revision=revision, local_files_only=True) == online
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint("org/two", revision=revision, headers_only=True) == online
    assert len(server.requests) == count


def test_headers_only_fetches_no_weights(server: HubServer) -> None:
    found = find_checkpoint("org/big", headers_only=True)
    assert found.weights == ()
    assert found.headers == {
        "w": TensorInfo("F32", (1000, 1000)),
        "b": TensorInfo("F16", (5,)),
    }
    assert [of.range for of in server.fetched("model.safetensors")] == ["bytes=0-100000"]


def test_headers_only_of_shards(server: HubServer) -> None:
    found = find_checkpoint("org/two", headers_only=True)
    assert found.weights == ()
    assert found.weight_map == WEIGHT_MAP
    assert found.headers == {"a": TensorInfo("F32", (2,)), "b": TensorInfo("F32", (3,))}
    assert all(of.range for name in SHARDS for of in server.fetched(name))


def test_chat_templates_are_fetched_where_there_are_any(server: HubServer) -> None:
    assert find_checkpoint("org/one").chat_templates == {}
    found = find_checkpoint("org/chat")
    texts = {name: path.read_bytes() for name, path in found.chat_templates.items()}
    assert texts == {"default": b"plain", "tool_use": b"tools"}
    assert server.fetched("other/notes.jinja") == []
    assert find_checkpoint("org/chat", local_files_only=True) == found
    assert find_checkpoint(found.config.parent).chat_templates == found.chat_templates


# Failures of the Hub


@pytest.mark.parametrize(
    ("name", "revision", "error", "match"),
    [
        ("org/none", None, HubError, r"no model 'org/none' that you can read.*spelling.*`hf auth"),
        ("org/gated", None, HubError, r"'org/gated' is gated.*http://\S+/org/gated, then run `hf"),
        ("org/one", "v9", HubError, r"'org/one' has no revision 'v9'.*leave revision= out"),
        (
            "org/no-config",
            None,
            HubError,
            r"lacks config\.json; it holds model\.safetensors\. A ch",
        ),
        (
            "org/short",
            None,
            HubError,
            r"lacks model-00001-of-00002\S+, model-00002-of-00002\S+; it",
        ),
        ("org/pickled", None, WeightError, r"only as pickles \(pytorch_model\.bin\).*any code"),
        (
            "org/pickled",
            None,
            WeightError,
            r"(?s)from_pretrained\('org/pickled'\)\.save_pre.*/conv",
        ),
        ("org/broken", None, HubError, r"answered HTTP 502 for 'org/broken': run it again later"),
        ("org/refused", None, HubError, r"token does not allow to read 'org/refused': run `hf"),
        ("org/portal", None, HubError, r"answered for 'org/portal' as no Hub does.*login page"),
        ("org/a b", None, HubError, r"'org/a b' is no folder and cannot be the id of a Hub"),
        ("https://hub/org/one", None, HubError, r"is an address; pass.*'org/name'"),
    ],
)
def test_failure(
    server: HubServer, name: str, revision: str | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        find_checkpoint(name, revision=revision)
    assert server.fetched("model.safetensors") == []


def test_damaged_header(server: HubServer) -> None:
    with pytest.raises(WeightError, match=r"model\.safetensors of 'org/damaged' is no safetensors"):
        find_checkpoint("org/damaged", headers_only=True)


def test_interrupted_download_leaves_nothing_half_done(server: HubServer) -> None:
    with pytest.raises(HubError, match=r"connection to \S+ failed while fetching 'org/cut'.*again"):
        find_checkpoint("org/cut")
    assert server.fetched("model.safetensors") != []
    assert list(Path(constants.HF_HUB_CACHE).rglob("model.safetensors")) == []
    with pytest.raises(HubError, match=r"lacks model\.safetensors.*it holds config\.json, token"):
        find_checkpoint("org/cut", local_files_only=True)
    server.repos["org/cut"].interrupted = frozenset()
    assert find_checkpoint("org/cut").weights[0].read_bytes() == WEIGHTS


def test_cache_that_cannot_be_written(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        HubError, match=r"'org/one' could not be fetched into the Hub cache .*HF_HO"
    ):
        find_checkpoint("org/one")


def test_no_connection_and_no_cache() -> None:
    match = r"connection to http\S+ failed while fetching 'org/one' \(ConnectError: .*cannot help"
    with pytest.raises(HubError, match=match):
        find_checkpoint("org/one")


def test_no_connection_but_a_cache(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = find_checkpoint("org/one").revision
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(HubError, match=f"Or pass local_files_only=True: commit {commit} is cached"):
        find_checkpoint("org/one")
    assert find_checkpoint("org/one", local_files_only=True).revision == commit


def test_empty_cache_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    match = r"'org/one' at revision 'main' is not in the Hub cache \(.*Load it once with a network"
    with pytest.raises(HubError, match=match):
        find_checkpoint("org/one", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=match):
        find_checkpoint("org/one")


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        (["config.json"], r"lacks config\.json; it holds model-00001"),
        (["model-00002-of-00002.safetensors"], r"lacks model-00002-of-00002\.safetensors; it"),
        (["model.safetensors.index.json"], r"lacks model\.safetensors\.index\.json, which says"),
        (
            # One shard without its index must not pass for a whole model.
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            r"lacks model\.safetensors\.index\.json, which says",
        ),
        (list(SHARDS), r"lacks model-00001-of-00002\.safetensors, model-00002-of"),
    ],
)
def test_partial_cache(server: HubServer, gone: list[str], match: str) -> None:
    snapshot = find_checkpoint("org/two").config.parent
    for name in gone:
        (snapshot / name).resolve().unlink()
    with pytest.raises(HubError, match=rf"cached copy of 'org/two' \(commit \w+\) {match}"):
        find_checkpoint("org/two", local_files_only=True)
    assert len(find_checkpoint("org/two").weights) == 2


def test_pickle_in_the_cache_says_nothing_about_the_repository(server: HubServer) -> None:
    snapshot = find_checkpoint("org/one").config.parent
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    with pytest.raises(HubError, match=r"lacks model\.safetensors \(or .*Load it once with"):
        find_checkpoint("org/one", local_files_only=True)


# Folders


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "home" / "model", {**SMALL, **INDEX, **SHARDS})
    found = find_checkpoint(folder, headers_only=True)
    assert found.revision is None
    assert found.headers is None
    assert found.weights == tuple(folder / name for name in sorted(SHARDS))
    assert found.weight_map == WEIGHT_MAP
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert find_checkpoint("~/model").weights == found.weights


def test_folder_with_a_file_of_another_name_and_no_tokenizer(tmp_path: Path) -> None:
    folder = write(tmp_path, {"config.json": CONFIG, "toy.safetensors": WEIGHTS})
    found = find_checkpoint(str(folder))
    assert found.weights == (folder / "toy.safetensors",)
    assert (found.tokenizer, found.tokenizer_config) == (None, None)


@pytest.mark.parametrize(
    ("files", "error", "match"),
    [
        (
            {},
            HubError,
            r"lacks config\.json; it holds no files\. A checkpoint needs config\.json and",
        ),
        (
            {"config.json": CONFIG},
            HubError,
            r"lacks model\.safetensors \(or model\.safetensors\.ind",
        ),
        (
            {"config.json": CONFIG, **INDEX},
            HubError,
            r"lacks model-00001-of-00002\.safetensors, model-00002-of-00002\.safetensors; it holds",
        ),
        (
            {"config.json": CONFIG, **SHARDS},
            HubError,
            r"lacks model\.safetensors\.index\.json, which",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b"{"},
            WeightError,
            r"index\.json is no index of shards \(JSONDecodeError: .*; fetch it again",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"metadata": {}}'},
            WeightError,
            r"index\.json is no index of shards \(KeyError: 'weight_map'\)",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"weight_map": {"w": 3}}'},
            WeightError,
            r"index\.json names 3; a shard is a \.safetensors file",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"weight_map": {}}'},
            WeightError,
            r"the 'weight_map' of .*index\.json is empty",
        ),
        (
            {
                "config.json": CONFIG,
                "model.safetensors.index.json": b'{"weight_map": {"w": "../up.safetensors"}}',
            },
            WeightError,
            r"names \.\./up\.safetensors; a shard is a \.safetensors file in the same folder",
        ),
        (
            {"config.json": CONFIG, "consolidated.00.pth": b"", "pytorch_model-1.bin": b""},
            WeightError,
            r"only as pickles \(consolidated\.00\.pth, pytorch_model-1\.bin\)",
        ),
        (
            {f"{number:02}.txt": b"" for number in range(12)},
            HubError,
            r"it holds 00\.txt, .*09\.txt and 2 more\.",
        ),
    ],
)
def test_faulty_folder(
    tmp_path: Path, files: dict[str, bytes], error: type[Exception], match: str
) -> None:
    folder = write(tmp_path / "model", files)
    with pytest.raises(error, match=match) as caught:
        find_checkpoint(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "path", ["./none", "/none", "~/none-here", "a/b/c", "none/", "", ".\\none"]
)
def test_missing_folder(path: str) -> None:
    with pytest.raises(
        HubError, match=rf"there is no folder {re.escape(repr(path))} \(working dir"
    ):
        find_checkpoint(path)


def test_path_object_is_never_a_hub_id(server: HubServer) -> None:
    with pytest.raises(HubError, match=r"there is no folder 'org/one'"):
        find_checkpoint(Path("org/one"))
    assert server.requests == []


def test_file_in_place_of_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"model.safetensors": WEIGHTS})
    with pytest.raises(
        HubError, match=r"model\.safetensors' is a file; pass the folder that holds"
    ):
        find_checkpoint(folder / "model.safetensors")


def test_revision_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"revision='v1' was given for the folder"):
        find_checkpoint(tmp_path, revision="v1")


# Bundled models


def test_bundled_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "models" / "atlas", {**SMALL, "model.safetensors": WEIGHTS})
    found = find_checkpoint("atlas")
    assert (found.name, found.revision) == ("atlas", None)
    assert found.config == folder / "config.json"


def test_typo_of_a_bundled_name(server: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "models" / "atlas", {**SMALL, "model.safetensors": WEIGHTS})
    with pytest.raises(HubError, match=r"Bundled models: atlas\. Did you mean 'atlas'\?"):
        find_checkpoint("altas")
    with pytest.raises(HubError, match=r"is not in the Hub cache.*Did you mean 'atlas'\?"):
        find_checkpoint("altas", local_files_only=True)
    with pytest.raises(HubError, match=r"Bundled models: atlas\.$"):
        find_checkpoint("org/none")
