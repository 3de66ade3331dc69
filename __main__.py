"""`python -m denoised` is the command `denoised`."""

import sys

from .daemon.cli.main import main

sys.exit(main())
