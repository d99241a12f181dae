"""Entry point of the command ``effnet``, or ``python -m effnet_cli``, under a name that no other package has.

The user's folder or one on PYTHONPATH may hold a ``flows``, ``models.py`` or ``conf``, which projects often have.
The packages of this code are therefore imported from its own folder first.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
for name in ("conf", "flows", "infra", "models", "tasks"):
    importlib.import_module(name)
sys.path.pop(0)  # site-packages before the standard library would replace modules of that

main = importlib.import_module("flows.__main__").main

if __name__ == "__main__":
    sys.exit(main())
