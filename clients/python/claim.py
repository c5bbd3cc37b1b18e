"""With the generated package: a claim, an order, and a problem with its fields."""

import os

import dibs_client
from dibs_client import ClaimBody, CouponsApi, Line, OrderBody, OrdersApi
from dibs_client.exceptions import ApiException

user_id, coupon_id, product_id = (int(os.environ[name]) for name in ("USER_ID", "COUPON", "PRODUCT"))

with dibs_client.ApiClient(dibs_client.Configuration(host=os.environ["API_URL"])) as client:
    coupons, orders = CouponsApi(client), OrdersApi(client)

    body = ClaimBody(user_id=user_id, coupon_id=coupon_id)
    claim = coupons.claim_coupon(body, prefer="wait=10", idempotency_key=f"claim-{user_id}")
    assert claim.status == "ISSUED", claim
    print("claim:", claim.user_coupon_id, claim.valid_until.isoformat())

    items = [Line(product_id=product_id, quantity=1)]
    placed = orders.place_order(OrderBody(user_id=user_id, items=items, pay=True))
    shown = orders.get_order(placed.order_id).actual_instance
    print("order:", shown.status.value, shown.pay_amount)

    try:
        coupons.claim_coupon(body)
        raise SystemExit("a second claim was accepted")
    except ApiException as refused:
        problem = refused.data
        assert problem.code == "COUPON_ALREADY_ISSUED" and problem.claim.claim_id == claim.claim_id, problem
        print("problem:", problem.code, problem.claim.sequence, problem.request_id)
