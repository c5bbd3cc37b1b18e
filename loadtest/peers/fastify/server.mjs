// First-come coupons as they are often written: Fastify on two processes, one EVALSHA a request. It keeps nothing that
// Redis does not keep, issues nothing and has no outcome to read: a claim ends with the response.
import cluster from 'node:cluster'
import Fastify from 'fastify'
import { Redis } from 'ioredis'

const PROCESSES = 2
const QUANTITY = 2_000_000_000
const [ACCEPTED, ALREADY_ISSUED, EXHAUSTED] = [0, 1, 2]

const SCRIPT = `
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return ${ALREADY_ISSUED} end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return ${EXHAUSTED} end
redis.call('SADD', KEYS[1], ARGV[1])
return ${ACCEPTED}`

if (cluster.isPrimary) {
  for (let started = 0; started < PROCESSES; started += 1) cluster.fork()
  cluster.on('exit', () => process.exit(1))
} else {
  const redis = new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379')
  const sha = await redis.script('LOAD', SCRIPT)
  const app = Fastify()
  const claim = {
    type: 'object',
    required: ['userId', 'couponId'],
    properties: { userId: { type: 'integer', minimum: 1 }, couponId: { type: 'integer', minimum: 1 } },
  }
  app.post('/coupons/issue', { schema: { body: claim } }, async (request, reply) => {
    const { userId, couponId } = request.body
    const decided = await redis.evalsha(sha, 1, `peer:${couponId}`, userId, QUANTITY)
    if (decided === ALREADY_ISSUED) return reply.code(409).send({ code: 'COUPON_ALREADY_ISSUED' })
    if (decided === EXHAUSTED) return reply.code(422).send({ code: 'COUPON_EXHAUSTED' })
    return reply.code(202).send({ couponId, userId, status: 'PENDING' })
  })
  await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 3000) })
}
