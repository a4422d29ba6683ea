"""Readable, independent forward passes of language models with a hook at every step.

The rooms of the package, each of which imports only those before it: `ops` and `text`, `config`,
`hooks`, `edits`, `params`, `families`, `checkpoints`, `state`, `forward`, then `model` and `run`,
`output`, `analysis`, `algzoo` and `cli`. To read the code, start at `forward.decoder`, the forward
pass, and `hooks.sites`, which names every place in it.

Names load on first use, so that ``import mi_ref`` costs next to nothing; ``__init__.pyi`` lists
them for type checkers and for the loader alike.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
