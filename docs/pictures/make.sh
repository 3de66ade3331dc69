#!/usr/bin/env bash
# Makes the pictures of the README and of governor.md anew: the demo with seed 1, its two pictures scaled to fewer than 300 kB
# each, and two rehearsals of the governor.
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
.venv/bin/denoised governor simulate --board pi5 --hours 1 --ambient 22:38 \
  --jobs bulk:floor=0.94 realtime:every=10s,due=3s,floor=0.94 --out docs/pictures/governor-pi5.png
.venv/bin/denoised governor simulate --board orin-nano-box --hours 3 --ambient 45:55 \
  --jobs bulk:floor=0.94 realtime:every=20s,due=2s,floor=0.94 --out docs/pictures/governor-orin-box.png
