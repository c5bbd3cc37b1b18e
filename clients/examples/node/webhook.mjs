// Receives webhooks with Node 18 or newer and nothing else, and verifies them as Standard Webhooks says. WEBHOOK_SECRET is
// that of Dibs; several, with a space between them, while one replaces the other. Prints the port, then each message.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_SECONDS = 300;
const keys = process.env.WEBHOOK_SECRET.split(" ").map((secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64"));

/** Whether one of the signatures is that of this message. `body` are the bytes as they came, before JSON is parsed. */
export function isSigned(headers, body, now = Date.now() / 1000) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } = headers;
  // An old message with a right signature is a replay.
  if (!id || !signatures || !(Math.abs(now - Number(timestamp)) <= TOLERANCE_SECONDS)) return false;
  const given = signatures.split(" ").filter((text) => text.startsWith("v1,")).map((text) => Buffer.from(text.slice(3), "base64"));
  return keys.some((key) => {
    const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
    return given.some((signature) => signature.length === expected.length && timingSafeEqual(signature, expected));
  });
}

// A message can come more than once. In production: the primary key of a table, in the transaction of its effect.
const processed = new Set();

const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  if (!isSigned(request.headers, body)) return response.writeHead(400).end("wrong signature\n");
  const id = request.headers["webhook-id"];
  if (!processed.has(id)) {
    processed.add(id);
    const message = JSON.parse(body);
    console.log(id, message.type);
  }
  response.writeHead(204).end();
});
server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => console.log(server.address().port));
