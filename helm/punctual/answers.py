"""What `helm test` runs: the gateway is ready, answers one request, and says whether that was in time."""

import json
import os
import urllib.request

URL, TASK, BUDGET_MS = os.environ["URL"], os.environ["TASK"], os.environ["BUDGET_MS"]

with urllib.request.urlopen(f"{URL}/readyz", timeout=10) as ready:
    print("ready:", ready.status)

request = urllib.request.Request(
    f"{URL}/{TASK}",
    data=json.dumps({"inputs": "What a wonderful film."}).encode(),
    headers={"Content-Type": "application/json", "X-Latency-SLA-Ms": BUDGET_MS},
)
with urllib.request.urlopen(request, timeout=60) as answer:
    met, checkpoint = answer.headers.get("X-SLA-Met"), answer.headers.get("X-Checkpoint")
    print(f"answered by {checkpoint}, in time: {met}:", answer.read().decode())
if met not in ("true", "false") or not checkpoint:
    raise SystemExit("the answer does not say who gave it, or whether it was in time")
