"""Write example_workflows/ from their description in tools/examples."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from examples.write import main

if __name__ == "__main__":
    sys.exit(main())
