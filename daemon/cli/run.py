"""`denoised run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

from ...config.load import load
from ...plugins.kind import load_kinds
from ..core.check import check_config
from ..logs import RateLimit
from ..recorder import Recorder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised run --help`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, see `denoised check`")


def main(args: argparse.Namespace) -> int:
    """0 after a clean stop, 2 where the config is bad, 1 where the daemon cannot work."""
    under_systemd = "JOURNAL_STREAM" in os.environ
    time = "" if under_systemd else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=time + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger().handlers[0].addFilter(RateLimit())
    kinds = load_kinds()
    read = partial(load, args.config, partial(check_config, kinds=kinds))
    config = read()
    from ..supervisor import Supervisor

    recorder = Recorder(Path(config.state_dir) / "flight")
    logging.getLogger().addHandler(recorder)
    try:
        Supervisor(config, kinds, read, recorder).run()
    except OSError as e:
        logging.error("cannot work: %s", e)
        return 1
    return 0
