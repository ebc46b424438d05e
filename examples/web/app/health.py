"""The container's health check: the service answers and reaches its database."""

import sys
import urllib.request

with urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2) as answer:
    sys.exit(answer.status != 200)
