"""Finding checkpoints on this machine: folders, including faulty ones, and the bundled models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.errors import HubError, WeightError
from tests.fixtures.hub_repos import CONFIG, INDEX, SHARDS, SMALL, WEIGHT_MAP, WEIGHTS
from tests.fixtures.hub_server import HubServer

pytestmark = pytest.mark.usefixtures("hub_client")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


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
            r"index\.json: expected JSON with .*, got JSONDecodeError: .*Fetch it again",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"metadata": {}}'},
            WeightError,
            r"index\.json: expected JSON with .* got KeyError: 'weight_map'\.",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"weight_map": {"w": 3}}'},
            WeightError,
            r"index\.json: expected \.safetensors files in the same folder, got 3\.",
        ),
        (
            {"config.json": CONFIG, "model.safetensors.index.json": b'{"weight_map": {}}'},
            WeightError,
            r"index\.json: the 'weight_map' is empty",
        ),
        (
            {
                "config.json": CONFIG,
                "model.safetensors.index.json": b'{"weight_map": {"w": "../up.safetensors"}}',
            },
            WeightError,
            r"expected \.safetensors files in the same folder, got \.\./up\.safetensors\.",
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
