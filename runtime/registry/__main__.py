"""The detached registry process: `python -m runtime.registry ROOT OPTIONS FD`. For `process.start_detached` only."""

from __future__ import annotations

import json
import sys

from runtime.registry.access import Access
from runtime.registry.process import run_process
from runtime.registry.service import ServiceOptions


def main() -> int:
    root, text, answer = sys.argv[1:]
    record = json.loads(text)
    options = ServiceOptions(**{**record, "access": Access(**record["access"])})
    return run_process(root, options, int(answer))


if __name__ == "__main__":
    sys.exit(main())
