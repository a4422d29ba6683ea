"""The golden cases as data: one tiny model per behaviour that a forward pass can get wrong.

Configs are spelled as on the Hub (``rope_theta``, ``rope_scaling``, ``torch_dtype``); a key that
old checkpoints lack is left out on purpose where its default is what the case is about.
"""

from __future__ import annotations

from collections.abc import Mapping

from golden.cases.case import Case
from golden.cases.experts import EXPERT_CASES
from golden.cases.gemma import GEMMA_CASES
from golden.cases.gpt import GPT2_CASES, GPT_NEOX_CASES, STARCODER2_CASES
from golden.cases.llama import LLAMA_CASES
from golden.cases.phi import PHI3_CASES, PHI_CASES
from golden.cases.qwen import MISTRAL_CASES, OLMO2_CASES, QWEN2_CASES, QWEN3_CASES
from golden.cases.rwkv import RWKV_CASES

GROUPS = (
    LLAMA_CASES,
    MISTRAL_CASES,
    QWEN2_CASES,
    QWEN3_CASES,
    OLMO2_CASES,
    GEMMA_CASES,
    PHI_CASES,
    PHI3_CASES,
    STARCODER2_CASES,
    GPT2_CASES,
    GPT_NEOX_CASES,
    EXPERT_CASES,
    RWKV_CASES,
)

CASES: Mapping[str, Case] = {case.name: case for group in GROUPS for case in group}
