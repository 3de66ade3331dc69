"""The command `denoised-train`: what an integrator runs off the board, where torch is. One verb per module, imported only when
it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

VERBS = {
    "defects": (".defects_line", "a model that draws the defects of your own line, from pictures and masks"),
    "gate": (".defects_gate", "the acceptance gate of such a model again, from the same pictures"),
    "evaluate": (".defects_evaluate", "a small detector with and without synthetic pictures, side by side"),
    "imputer": (".imputation", "the model that fills gaps in sensor values, from synthetic plants"),
}
"""Verb -> its module here, and what it does in one line. The module's `main()` reads sys.argv."""
NEEDED = ("torch", "onnx", "onnxruntime")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `denoised-train ARGV...`: 0 success, 1 failure, 2 bad usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.split(":")[0].replace("`", "") + "\n")
        print("usage: denoised-train VERB ..., with one of\n")
        print(*(f"  {verb:10}{what}" for verb, (_, what) in VERBS.items()), sep="\n")
        print("\nEvery verb has --help.")
        return 0 if words else 2
    if words[0] not in VERBS:
        print(f"denoised-train: no verb '{words[0]}'; expected one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"denoised-train: training needs {' and '.join(missing)}, which this Python ({sys.executable}) does not have. "
            "Off the board, in an environment of its own: pip install 'denoised[train]'",
            file=sys.stderr,
        )
        return 1
    before, sys.argv = sys.argv, [f"denoised-train {words[0]}", *words[1:]]
    try:
        return int(importlib.import_module(VERBS[words[0]][0], __package__).main() or 0)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        return 1
    finally:
        sys.argv = before


if __name__ == "__main__":
    sys.exit(main())
