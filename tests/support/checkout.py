"""Where the checkout is, and the real images that some tests read where they lie beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
REAL_DATA = ROOT.parent / "shared" / "data"
