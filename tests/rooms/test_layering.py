"""The direction of imports, read from the source: no family and no array library in the core."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mi_ref.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mi_ref"
MODULES = sorted(PACKAGE.rglob("*.py"))
BACKENDS = sorted((ROOT / "backends" / "mi_ref_backends").rglob("*.py"))
FAMILY_FILES = sorted((PACKAGE / "families").glob("*.py"))
# Rooms whose code computes or describes a pass, whatever the family.
FAMILY_FREE = (
    "ops", "config/decoder.py", "config/rope.py", "config/attention.py", "config/norms.py", "hooks",
    "edits", "params", "state", "forward", "text/padding.py", "families/reading/weight_names.py",
    "checkpoints/check.py", "checkpoints/tensor_reader.py", "checkpoints/read.py",
    "checkpoints/read_recurrent.py", "model.py", "run.py", "backend.py", "compute.py",
    "weightless.py",
)  # fmt: skip
ARITHMETIC = sorted(
    path
    for room in FAMILY_FREE
    for path in ([PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py"))
)
# Not the bare "rwkv": hook sites have that name, and a recurrence has its own forward file.
FAMILY_WORDS = {*FAMILIES, "llama", "mistral", "qwen", "phi", "gemma", "starcoder", "gpt2", "neox",
                "olmo", "mixtral"}  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def uses(path: Path) -> set[Path]:
    """Return the package's own files that a file imports, anywhere in it and for types only too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # What is imported may be a file of the package named, or a name in that file.
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [m if file_of(m) else node.module for m in modules]
        found |= {file for module in modules if (file := file_of(module)) not in (None, path)}
    return {file for file in found if file is not None}


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    named = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in named if file in MODULES), None)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Take away, over and over, files that import none of those left: a circle would stay."""
    left = {path: uses(path) for path in MODULES}
    while free := [path for path, used in left.items() if not used & left.keys()]:
        for path in free:
            del left[path]
    assert {name(path): sorted(map(name, used & left.keys())) for path, used in left.items()} == {}


def roots(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(path)}


def without_prose(path: Path) -> str:
    """Return a file's code: its docstrings and comments may well name a family."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not is_docstring(x)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 25
    assert len(ARITHMETIC) > 35
    assert set(ARITHMETIC) <= set(MODULES)


@pytest.mark.parametrize("path", ARITHMETIC, ids=name)
def test_the_core_knows_no_family(path: Path) -> None:
    code = without_prose(path).lower()
    # "Llama3Rope" is a kind of rotary embedding that configs of several families ask for.
    code = re.sub(r"llama3(rope)?", "", code)
    assert [word for word in sorted(FAMILY_WORDS) if word in code] == []
    assert not re.search(r"cfg\.model_type\s*(==|!=|in\b)", code)


@pytest.mark.parametrize("path", FAMILY_FILES, ids=name)
def test_a_family_reads_and_does_not_compute(path: Path) -> None:
    foreign = ("mi_ref.backend", "mi_ref.ops", "mi_ref.forward", "mi_ref.params", "numpy", "math")
    assert [module for module in imported(path) if f"{module}.".startswith(foreign)] == []
    assert not re.search(r"\b(xp|np|Array)\b", without_prose(path))
    assert len(path.read_text("utf-8").splitlines()) <= 120


@pytest.mark.parametrize("path", FAMILY_FILES, ids=name)
def test_a_family_multiplies_sizes_only(path: Path) -> None:
    """Constants that a config implies, such as ``d_head**-0.5``, and which layers have what."""
    small = (ast.Mod, ast.FloorDiv, ast.Div, ast.Mult, ast.Add, ast.Pow, ast.BitOr)
    tree = ast.parse(path.read_text("utf-8"))
    operations = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    assert [ast.unparse(node) for node in operations if not isinstance(node.op, small)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.While | ast.AugAssign)]
    assert functions == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_of_the_package(path: Path) -> None:
    banned = {"torch", "transformers", "mi_ref_backends", "cupy", "array_api_strict", "jax"}
    if name(path) not in (
        "mi_ref/checkpoints/safetensors.py",
        "mi_ref/checkpoints/gguf/weights.py",
    ):
        banned |= {"numpy"}
    assert not roots(path) & banned


def test_every_array_library_of_a_backend_stays_there() -> None:
    libraries = {"numpy", "cupy", "cupyx", "array_api_compat"}
    assert {"numpy"} <= {root for path in BACKENDS for root in roots(path)}
    for path in BACKENDS:
        foreign = {"torch", "transformers", "tokenizers", "huggingface_hub", "rich"}
        assert not roots(path) & foreign
        core = {module for module in imported(path) if module.startswith("mi_ref.")}
        assert core <= {"mi_ref.backend", "mi_ref.errors", "mi_ref.ops.ops"}, name(path)
        assert roots(path) <= libraries | set(sys.stdlib_module_names) | {
            "mi_ref", "mi_ref_backends"
        }  # fmt: skip


def test_decoder_takes_families_as_data() -> None:
    for room in ("ops", "hooks", "edits", "params", "state", "forward"):
        for path in (PACKAGE / room).rglob("*.py"):
            assert not any(found.startswith("mi_ref.families") for found in imported(path))


def test_files_are_small() -> None:
    lengths = {name(path): len(path.read_text("utf-8").splitlines())
               for path in [*MODULES, *BACKENDS]}  # fmt: skip
    assert {path: length for path, length in lengths.items() if length > 300} == {}
    assert statistics.median(lengths.values()) <= 150


def test_files_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "common", "misc", "base", "core", "manager", "handler"}
    assert [name(path) for path in MODULES + BACKENDS if path.stem.strip("_") in vague] == []
    classes = [
        node.name
        for path in MODULES + BACKENDS
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert [word for word in classes if word.endswith(("Manager", "Handler", "Helper"))] == []


@pytest.mark.parametrize("path", MODULES + BACKENDS, ids=name)
def test_annotations_are_not_evaluated_and_types_not_ignored_at_large(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    has_code = any(not is_docstring(node) for node in tree.body)
    assert not has_code or "from __future__ import annotations" in text
    assert not re.search(r"# type: ignore(?!\[)", text)
    assert not re.search(r"# noqa(?!:)", text)
    assert ast.get_docstring(tree)


def test_backends_is_a_source_root() -> None:
    assert not (ROOT / "backends" / "__init__.py").exists()


HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "rich", "array_api_compat",
         "jaxtyping", "beartype", "matplotlib", "cupy", "safetensors")  # fmt: skip


def test_importing_the_package_imports_little() -> None:
    code = f"import sys, mi_ref; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_running_on_numpy_needs_no_other_array_library(repository: Path) -> None:
    folder = str(repository / "golden" / "data" / "llama2")
    unwanted = tuple(module for module in HEAVY if module not in ("tokenizers", "rich"))
    code = (
        f"import sys, mi_ref; mi_ref.from_pretrained({folder!r}).run([1, 2])"
        f"; print([m for m in {unwanted} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_module_with_shapes_is_checked_at_run_time() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (option,) = [
        each
        for each in settings["tool"]["pytest"]["ini_options"]["addopts"]
        if each.startswith("--jaxtyping-packages=")
    ]
    checked = option.partition("=")[2].split(",")
    shapes = {"Float", "Int", "Bool", "Residual"}
    for path in [*(ROOT / "mi_ref").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if path.name == "_typing.py" or not names & shapes:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("backends.")
        assert any(f"{module}.".startswith(f"{each}.") for each in checked), module


def test_the_suite_checks_shapes_at_run_time() -> None:
    """Without the plug-in every shape annotation would pass unread."""
    import numpy as np
    from jaxtyping import TypeCheckError

    from mi_ref.ops import ops

    with pytest.raises(TypeCheckError, match="weight"):
        ops.linear(np.ones((2, 3)), np.ones((4, 5)), None)
