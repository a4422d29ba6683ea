"""Array libraries under test, golden models, and checkpoints that only some machines have.

``pytest --backend NAME`` runs on one installed backend. Without it the tests run on NumPy, on two
variants of it that catch hidden writes, and on array_api_strict, which implements only the
standard.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache, wraps
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

import mi_ref
from mi_ref import Backend, Model, get_backend
from mi_ref.checkpoints import find as hub
from mi_ref.ops.ops import Op, Ops, standard_ops
from mi_ref.testing import golden_cases
from tests.fixtures.golden_copies import Altered, altered_copy
from tests.fixtures.hub_repos import repos
from tests.fixtures.hub_server import HubServer, point_to

ROOT = Path(__file__).resolve().parents[1]


class Frozen(np.ndarray[Any, Any]):
    """A read-only array whose results are read-only too."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if options.get("out") is not None:
            raise AssertionError(f"{ufunc.__name__} was told to write into an array")
        return freeze(getattr(ufunc, method)(*thaw(inputs), **options))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("an array was written to")


def freeze(value: Any) -> Any:
    """Return `value` with every array in it frozen."""
    if isinstance(value, tuple):
        return tuple(map(freeze, value))
    if not isinstance(value, np.ndarray):
        return value
    frozen = value.view(Frozen)
    frozen.flags.writeable = False
    return frozen


def thaw(value: Any) -> Any:
    """Return `value` with every frozen array in it as NumPy's own kind, still read-only.

    NumPy may then write into temporaries of its own, as it does in ``mean``.
    """
    if isinstance(value, list | tuple):
        return type(value)(map(thaw, value))
    return np.asarray(value) if isinstance(value, Frozen) else value


class FrozenNumPy:
    """NumPy's functions, returning frozen arrays."""

    def __getattr__(self, name: str) -> Any:
        own = getattr(np, name)
        if isinstance(own, type) or not callable(own):
            return own

        @wraps(own)
        def frozen(*args: Any, **options: Any) -> Any:
            return freeze(own(*thaw(args), **options))

        return frozen


def _host_erf(x: Any) -> Any:
    return np.array([math.erf(v) for v in x.reshape(-1)], dtype=x.dtype).reshape(x.shape)


def _numpy_readonly() -> Backend:
    xp = FrozenNumPy()
    return Backend(
        name="numpy-readonly",
        device=None,
        xp=xp,
        from_host=freeze,
        to_host=lambda x: x.view(np.ndarray),
        ops=standard_ops(xp, lambda x: freeze(_host_erf(x))),
        version=np.__version__,
    )


def _array_api_strict() -> Backend:
    import array_api_strict as xp

    # Nothing optional: no extension, no shape that depends on values.
    xp.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )
    return Backend(
        name="array-api-strict",
        device=None,
        xp=xp,
        from_host=xp.asarray,
        to_host=np.asarray,
        ops=standard_ops(xp, lambda x: xp.asarray(_host_erf(np.asarray(x)))),
        version=xp.__version__,
    )


def guard(op: Op) -> Op:
    """Return `op`, given read-only every array that it may not overwrite."""

    def call(*args: Any, **options: Any) -> Any:
        # By the definitions in mi_ref.ops.ops.
        spared = 1 if options.get("overwrite") else 0
        locked = [_locked(x) if n >= spared else x for n, x in enumerate(args)]
        return op(*locked, **{key: _locked(x) for key, x in options.items()})

    return call


def _numpy_frozen_inputs() -> Backend:
    """Return NumPy's own kernels, given read-only what they may not overwrite."""
    real = get_backend("numpy")
    ops = Ops(**{field.name: guard(getattr(real.ops, field.name)) for field in fields(Ops)})
    return Backend(
        name="numpy-frozen-inputs",
        device=real.device,
        xp=real.xp,
        from_host=real.from_host,
        to_host=real.to_host,
        ops=ops,
        version=real.version,
    )


def _locked(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    view = x.view()
    view.flags.writeable = False
    return view


UNDER_TEST: dict[str, Callable[[], Backend]] = {
    "numpy": lambda: get_backend("numpy"),
    "numpy-readonly": _numpy_readonly,
    "array-api-strict": _array_api_strict,
    "numpy-frozen-inputs": _numpy_frozen_inputs,
}


@cache
def _backend(name: str) -> Backend:
    return UNDER_TEST[name]() if name in UNDER_TEST else get_backend(name)


_LOADED: dict[tuple[str, str, str], Model] = {}


def _load(case: str, backend: Backend, dtype: str) -> Model:
    # By the backend's name: `get_backend` makes a new object on each call.
    key = case, backend.name, dtype
    if key not in _LOADED:
        folder = ROOT / "golden" / "data" / case
        _LOADED[key] = mi_ref.from_pretrained(folder, backend=backend, dtype=dtype)
    return _LOADED[key]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", metavar="NAME", help="test this installed backend only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--backend")
    if "backend" in metafunc.fixturenames:
        names = [chosen] if chosen else list(UNDER_TEST)
        metafunc.parametrize("backend", names, indirect=True, scope="session")
    if "golden" in metafunc.fixturenames:
        cases = golden_cases(ROOT / "golden" / "data")
        metafunc.parametrize("golden", cases, ids=[case.name for case in cases], scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each array library under test in turn."""
    return _backend(request.param)


@pytest.fixture(scope="session")
def load() -> Callable[[str, Backend, str], Model]:
    """Load a golden model by case, backend and dtype, once per session."""
    return _load


@pytest.fixture(scope="session")
def tiny() -> Model:
    """One small model with grouped heads on NumPy, where the library does not matter."""
    return _load("llama2", get_backend("numpy"), "float32")


@pytest.fixture(scope="session")
def atlas() -> Model:
    """The bundled model, as a user loads it."""
    return mi_ref.from_pretrained("atlas")


@pytest.fixture(scope="session")
def tested(request: pytest.FixtureRequest) -> Backend:
    """The backend whose operations are compared with their definitions."""
    return get_backend(request.config.getoption("--backend") or "numpy")


@pytest.fixture(scope="session")
def read_only() -> Backend:
    """NumPy with read-only arrays."""
    return _backend("numpy-readonly")


@pytest.fixture(scope="session")
def guarded() -> Callable[[Op], Op]:
    """Kernels that fail if they write to arrays they must not overwrite."""
    return guard


@pytest.fixture
def as_users_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the type checker of the test run, which refuses mistakes before mi_ref does."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)


@pytest.fixture
def hub_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub client with an empty cache, no login, no server and no pauses between its retries.

    Bundled models are the ones that a test writes into the folder models.
    """
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


@pytest.fixture
def server(hub_client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub for the client."""
    with HubServer(repos()) as running:
        point_to(monkeypatch, running.url)
        yield running


@pytest.fixture
def altered(repository: Path, tmp_path: Path) -> Altered:
    """Write a copy of a golden model's folder with changed tensors."""
    return lambda case, change: altered_copy(
        repository / "golden" / "data" / case, tmp_path, change
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the source checkout, which golden files and layering tests read."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real checkpoints next to the repository, if any."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared with real checkpoints")
    return folder
