"""A claim, an order, and a problem, with Python 3.9 or newer and nothing else. API_URL, API_KEY (with the scopes claims,
orders and read), COUPON, PRODUCT and USER_ID come from the environment."""

import json
import os
import time
import urllib.error
import urllib.request
import uuid

API_URL = os.environ["API_URL"]
USER_ID, COUPON, PRODUCT = (int(os.environ[name]) for name in ("USER_ID", "COUPON", "PRODUCT"))


def post(path, body, headers=None):
    """Calls the API; repeats what may succeed later, under the same key, so that it happens once."""
    headers = {"content-type": "application/json", "idempotency-key": str(uuid.uuid4()), **(headers or {})}
    if os.environ.get("API_KEY"):
        headers["authorization"] = f"Bearer {os.environ['API_KEY']}"
    for attempt in range(1, 6):
        request = urllib.request.Request(API_URL + path, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as refused:
            if refused.code not in (429, 503) or attempt == 5:
                return refused.code, json.load(refused)
            time.sleep(int(refused.headers.get("retry-after", 1)))


status, body = post("/coupons/issue", {"userId": USER_ID, "couponId": COUPON}, {"prefer": "wait=10"})
print("claim:", status, json.dumps(body))

items = [{"productId": PRODUCT, "quantity": 1}]
status, body = post("/orders", {"userId": USER_ID, "items": items, "pay": True})
print("order:", status, json.dumps(body))

# The user has the coupon: `code` is for programs, `claim` is the first claim.
status, body = post("/coupons/issue", {"userId": USER_ID, "couponId": COUPON})
print("problem:", status, json.dumps(body))
