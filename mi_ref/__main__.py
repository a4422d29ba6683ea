"""``python -m mi_ref`` is ``mi-ref``, where no command was installed on the path."""

from __future__ import annotations

import sys

from mi_ref.cli import main

sys.exit(main())
