#!/usr/bin/env bash
# Makes the pictures of the README anew: the demo with seed 1, its two pictures scaled to fewer than 300 kB each.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
.venv/bin/denoised demo --seed 1 --out "$out"
.venv/bin/python - "$out" docs/pictures <<'PY'
import sys
from pathlib import Path

import cv2

came, goes = map(Path, sys.argv[1:])
for name, width in (("contact-sheet.png", 1000), ("sensors.png", 1500)):
    picture = cv2.imread(str(came / name))
    size = (width, round(picture.shape[0] * width / picture.shape[1]))
    cv2.imwrite(str(goes / name), cv2.resize(picture, size, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_PNG_COMPRESSION, 9])
PY
