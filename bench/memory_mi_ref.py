"""Run one forward pass of mi_ref on token ids. Arguments: checkpoint, tokens, what to keep.

Prints the size of the pass's results in bytes; another process measures the peak.
"""

import sys

import mi_ref

folder, n_tokens, kept = sys.argv[1], int(sys.argv[2]), sys.argv[3]
model = mi_ref.from_pretrained(folder)
prompt = [token % model.cfg.d_vocab for token in range(1, n_tokens + 1)]
everything = [entry.point for entry in model.hook_points if not entry.lazy]
run = model.run(
    prompt,
    capture=everything if kept == "everything" else (),
    logits="last" if kept == "last" else "all",
)
owners = {}
for array in [run.logits, run.resid, *run.cache.values()]:
    while array.base is not None and hasattr(array.base, "nbytes"):
        array = array.base
    owners[id(array)] = array.nbytes
print(sum(owners.values()))
