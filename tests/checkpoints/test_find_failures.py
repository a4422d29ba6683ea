"""Errors when the Hub, the network or the cache does not give a whole checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.errors import HubError, WeightError
from tests.fixtures.hub_repos import SHARDS, WEIGHTS
from tests.fixtures.hub_server import HubServer, point_to

pytestmark = pytest.mark.usefixtures("hub_client")


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
        ("org/broken", None, HubError, r"answered HTTP 502 for 'org/broken': try again later"),
        ("org/refused", None, HubError, r"token is not allowed to read 'org/refused': run `hf"),
        (
            "org/portal",
            None,
            HubError,
            r"gave an answer for 'org/portal' that no Hub gives.*login page",
        ),
        ("org/a b", None, HubError, r"'org/a b' is not a folder and cannot be the id of a Hub"),
        ("https://hub/org/one", None, HubError, r"is a URL; pass.*'org/name'"),
    ],
)
def test_failure(
    server: HubServer, name: str, revision: str | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        find_checkpoint(name, revision=revision)
    assert server.fetched("model.safetensors") == []


def test_damaged_header(server: HubServer) -> None:
    with pytest.raises(
        WeightError, match=r"model\.safetensors of 'org/damaged' is not a safetensors"
    ):
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
    match = (
        r"connection to http\S+ failed while fetching 'org/one' \(ConnectError: .*would not help"
    )
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
