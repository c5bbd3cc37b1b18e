// With the generated types: a claim, an order, and a problem with its fields.
import createClient from "openapi-fetch";

import type { paths } from "./dibs.js";

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const dibs = createClient<paths>({ baseUrl: setting("API_URL") });
const [userId, couponId, productId] = ["USER_ID", "COUPON", "PRODUCT"].map((name) => Number(setting(name)));

const claim = await dibs.POST("/coupons/issue", {
  params: { header: { Prefer: "wait=10", "Idempotency-Key": `claim-${userId}` } },
  body: { userId, couponId },
});
// One of both: the type of an issued claim has the coupon, that of a pending one has none.
if (claim.data?.status !== "ISSUED") throw new Error(`not issued: ${JSON.stringify(claim.error ?? claim.data)}`);
console.log("claim:", claim.data.userCouponId, claim.data.validUntil);

const placed = await dibs.POST("/orders", { body: { userId, items: [{ productId, quantity: 1 }], pay: true } });
if (!placed.data || placed.data.status === "PENDING") throw new Error(JSON.stringify(placed.error ?? placed.data));
const shown = await dibs.GET("/orders/{orderId}", { params: { path: { orderId: placed.data.orderId } } });
if (!shown.data || shown.data.status === "PENDING") throw new Error(JSON.stringify(shown.error ?? shown.data));
console.log("order:", shown.data.status, shown.data.payAmount);

const { error, response } = await dibs.POST("/coupons/issue", { body: { userId, couponId } });
if (error?.code !== "COUPON_ALREADY_ISSUED" || error.claim?.claimId !== claim.data.claimId) {
  throw new Error(`another problem: ${response.status} ${JSON.stringify(error)}`);
}
console.log("problem:", error.code, error.claim.sequence, error.requestId);
