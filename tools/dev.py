#!/usr/bin/env python3
"""One command to set up, try, serve and test the pack; it needs nothing but Python.

python3 tools/dev.py demo     make a small video with tiny random models in a real ComfyUI
python3 tools/dev.py test     every check and every test
python3 tools/dev.py serve    ComfyUI with this pack, until Ctrl-C
python3 tools/dev.py lint     the static checks alone
python3 tools/dev.py setup    only prepare what the others need
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (a clear sentence instead of a SyntaxError further down)
    sys.exit("The pack needs Python 3.10 or newer; this is %d.%d." % sys.version_info[:2])  # noqa: UP031

from development.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
