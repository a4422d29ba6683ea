"""Questions to a model, each answered by a value that prints, plots, saves and loads.

Names load on first use; ``__init__.pyi`` lists them. The rooms, bottom up: `arguments` reads what
callers pass, `measure` compares predictions, `sweeps` runs grids of edits, and the others ask.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
