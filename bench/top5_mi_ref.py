"""Predict the next token with mi_ref: the whole of a short program. Argument: checkpoint, text."""

import sys

import mi_ref

model = mi_ref.from_pretrained(sys.argv[1])
print(model.run(sys.argv[2]).top(5))
