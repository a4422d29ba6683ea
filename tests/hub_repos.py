"""Checkpoints of a few bytes, whole, sharded and damaged, for the Hub in hub_server to serve."""

from __future__ import annotations

import json

import numpy as np
from hub_server import Repo
from safetensors.numpy import save

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
