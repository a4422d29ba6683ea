"""Predict the next token with transformers: what ``top5_mi_ref.py`` does."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.inference_mode():
    logits = model(**tokenizer(sys.argv[2], return_tensors="pt")).logits[0, -1]
values, ids = logits.topk(5)
for value, token in zip(values.tolist(), ids.tolist(), strict=True):
    print(repr(tokenizer.decode([token])), token, f"{value:.3f}")
