"""`python -m backends.native`."""

from __future__ import annotations

import sys

from backends.native.cli import main

sys.exit(main())
