"""Damage recordings at random, and read every mutant whole: data or a RecordingError.

    python benchmarks/mutants.py                 # 10,000 mutants, some minutes
    python benchmarks/mutants.py --quick         # 300
    python benchmarks/mutants.py --truncations   # 500 cuts at random offsets

The work is in tests/support/mutants.py, of which the tests try a few.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.mutants import main

if __name__ == "__main__":
    sys.exit(main())
