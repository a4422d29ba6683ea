"""Downloads by the real Hub client from a local server: files, versions, the cache, headers."""

from __future__ import annotations

import huggingface_hub
import pytest
from huggingface_hub import constants

from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.safetensors import TensorInfo, Weights
from tests.fixtures.hub_repos import CONFIG, INDEX, SHARDS, SMALL, WEIGHT_MAP, WEIGHTS
from tests.fixtures.hub_server import HubServer

pytestmark = pytest.mark.usefixtures("hub_client")


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
