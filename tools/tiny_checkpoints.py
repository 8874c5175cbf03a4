#!/usr/bin/env python3
"""Write tiny random Wan checkpoints: python3 tools/tiny_checkpoints.py --out DIR [--only NAME ...]."""

import sys

from tiny.make import main

if __name__ == "__main__":
    sys.exit(main())
