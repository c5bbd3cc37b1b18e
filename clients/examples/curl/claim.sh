#!/usr/bin/env bash
# A claim, an order, and a problem, with curl. API_URL, API_KEY (with the scopes claims, orders and read), COUPON, PRODUCT
# and USER_ID come from the environment; without AUTH_MODE=required there is no API_KEY.
set -euo pipefail

call() { # METHOD PATH BODY [HEADER...]: leaves $status and $body; repeats what may succeed later, under the same key
  local method=$1 path=$2 json=$3 key headers=() header attempt answer
  shift 3
  key=$(tr -d '\n' </proc/sys/kernel/random/uuid)
  [[ -z ${API_KEY:-} ]] || headers+=(-H "authorization: Bearer $API_KEY")
  for header; do headers+=(-H "$header"); done
  for attempt in 1 2 3 4 5; do
    answer=$(curl --silent --show-error --max-time 15 --write-out '\n%{http_code} %header{retry-after}' \
      --request "$method" "$API_URL$path" -H 'content-type: application/json' -H "idempotency-key: $key" \
      "${headers[@]}" --data "$json")
    read -r status retry_after <<<"${answer##*$'\n'}"
    body=${answer%$'\n'*}
    [[ $status == 503 || $status == 429 ]] || return 0
    ((attempt == 5)) || sleep "${retry_after:-1}"
  done
}

call POST /coupons/issue "{\"userId\": $USER_ID, \"couponId\": $COUPON}" 'prefer: wait=10'
echo "claim: $status $body"

call POST /orders "{\"userId\": $USER_ID, \"items\": [{\"productId\": $PRODUCT, \"quantity\": 1}], \"pay\": true}"
echo "order: $status $body"

# The user has the coupon: `code` is for programs, `claim` is the first claim.
call POST /coupons/issue "{\"userId\": $USER_ID, \"couponId\": $COUPON}"
echo "problem: $status $body"
