// A claim, an order, and a problem, with Node 18 or newer and nothing else. API_URL, API_KEY (with the scopes claims,
// orders and read), COUPON, PRODUCT and USER_ID come from the environment.
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";

const { API_URL, API_KEY, COUPON, PRODUCT, USER_ID } = process.env;

/** Calls the API; repeats what may succeed later, under the same key, so that it happens once. */
async function post(path, body, headers = {}) {
  const key = randomUUID();
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(API_URL + path, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "idempotency-key": key,
        ...(API_KEY && { authorization: `Bearer ${API_KEY}` }),
        ...headers,
      },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
    if (![429, 503].includes(response.status) || attempt === 5) {
      return { status: response.status, body: await response.json() };
    }
    await pause(1000 * Number(response.headers.get("retry-after") ?? 1));
  }
}

const claimed = { userId: Number(USER_ID), couponId: Number(COUPON) };
const claim = await post("/coupons/issue", claimed, { prefer: "wait=10" });
console.log("claim:", claim.status, JSON.stringify(claim.body));

const items = [{ productId: Number(PRODUCT), quantity: 1 }];
const order = await post("/orders", { userId: Number(USER_ID), items, pay: true });
console.log("order:", order.status, JSON.stringify(order.body));

// The user has the coupon: `code` is for programs, `claim` is the first claim.
const again = await post("/coupons/issue", claimed);
console.log("problem:", again.status, JSON.stringify(again.body));
