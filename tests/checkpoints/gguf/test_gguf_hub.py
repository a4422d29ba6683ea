"""GGUF files in Hub repositories, and models that are split into several files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

import mi_ref
from mi_ref import HubError, WeightError
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.gguf import hub
from mi_ref.checkpoints.inspect import inspect_checkpoint
from tests.fixtures.gguf_files import convert, make, read_folder, write
from tests.fixtures.hub_server import HubServer, Repo, point_to

LLAMA = Path(__file__).parents[3] / "golden/data/llama2"
TOKENS = [3, 1, 4, 1, 5]


@pytest.fixture
def server(
    hub_client: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    made = make(LLAMA, tmp_path / "made.gguf").read_bytes()
    other = {".gitattributes": b"", "README.md": b"about it", "mmproj-F16.gguf": b"eyes"}
    repos = {
        "org/gguf": Repo({**other, "a-Q4.gguf": made}),
        "org/several": Repo({**other, "a.gguf": made, "sub/b.gguf": made}),
    }
    with HubServer(repos) as hub:
        point_to(monkeypatch, hub.url)
        yield hub


def test_a_repository_with_one(server: HubServer) -> None:
    model = mi_ref.from_pretrained("org/gguf")
    expected = mi_ref.from_pretrained(LLAMA).run(TOKENS).logits
    np.testing.assert_array_equal(model.run(TOKENS).logits, expected)
    assert model.source.revision == server.repos["org/gguf"].commit
    assert server.fetched("mmproj-F16.gguf") == []


def test_a_repository_with_several(server: HubServer) -> None:
    with pytest.raises(HubError, match=r"2 models in GGUF: a\.gguf, sub/b\.gguf"):
        mi_ref.from_pretrained("org/several")
    assert mi_ref.from_pretrained("org/several", filename="sub/b.gguf").cfg.d_vocab == 48
    assert server.fetched("a.gguf") == []
    with pytest.raises(HubError, match=r"holds no 'c\.gguf'"):
        mi_ref.from_pretrained("org/several", filename="c.gguf")


@pytest.mark.parametrize("first", [64, 1000, 1 << 23])
def test_headers_alone_are_read(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(hub, "_FIRST", first)
    found = inspect_checkpoint("org/gguf")
    assert found.refusals == ()
    assert found.n_params == inspect_checkpoint(LLAMA).n_params
    asked = server.fetched("a-Q4.gguf")
    assert asked
    assert all(request.range for request in asked)


def test_the_cache_serves_offline(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mi_ref.from_pretrained("org/several", filename="sub/b.gguf")
    server.requests.clear()
    options = {"filename": "sub/b.gguf", "local_files_only": True}
    again = mi_ref.from_pretrained("org/several", **options)  # type: ignore[arg-type]
    assert again.source.revision == model.source.revision
    commit = str(model.source.revision)
    assert find_checkpoint("org/several", revision=commit, local_files_only=True).gguf
    assert server.requests == []
    with pytest.raises(HubError, match=r"holds no 'a\.gguf'"):
        mi_ref.from_pretrained("org/several", filename="a.gguf", local_files_only=True)


def test_a_cut_file_on_the_hub(server: HubServer) -> None:
    repo = server.repos["org/gguf"]
    repo.push({".gitattributes": b"", "a.gguf": repo.history[repo.commit]["a-Q4.gguf"][:900]})
    for call in (mi_ref.from_pretrained, inspect_checkpoint):
        with pytest.raises(WeightError, match="cut short"):
            call("org/gguf")


def split(folder: Path) -> list[Path]:
    """Write a model as two shards, as llama-gguf-split does."""
    metadata, tensors = convert(*read_folder(LLAMA))
    names = sorted(tensors)
    paths = []
    for number, part in enumerate((names[:7], names[7:])):
        path = folder / f"m-{number + 1:05}-of-00002.gguf"
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": len(names)}
        head = metadata if number == 0 else {"general.architecture": "llama"}
        paths.append(write(path, {**head, **keys}, {name: tensors[name] for name in part}))
    return paths


def test_shards_are_read_together(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    expected = mi_ref.from_pretrained(LLAMA).run(TOKENS).logits
    for name in (tmp_path, first, second):
        np.testing.assert_array_equal(mi_ref.from_pretrained(name).run(TOKENS).logits, expected)
    second.unlink()
    with pytest.raises(HubError, match=r"lacks m-00002-of-00002\.gguf"):
        mi_ref.from_pretrained(tmp_path)


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(WeightError, match=r"says that it is shard 0 \(from 0\) of 2; it was read"):
        mi_ref.from_pretrained(tmp_path)
    assert gguf.GGUFReader(first).fields["split.count"].contents() == 2
