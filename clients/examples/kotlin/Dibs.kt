// Claims and orders with Spring 6.1 (RestClient) and Kotlin. No test runs it.
package shop.dibs

import com.fasterxml.jackson.databind.ObjectMapper
import org.springframework.http.HttpHeaders
import org.springframework.http.HttpStatusCode
import org.springframework.http.MediaType
import org.springframework.http.ProblemDetail
import org.springframework.http.converter.json.Jackson2ObjectMapperBuilder
import org.springframework.web.client.RestClient
import java.time.Instant
import java.util.UUID

data class Claim(
    val claimId: UUID,
    val status: String,
    val sequence: Long,
    val userCouponId: UUID?,
    val validUntil: Instant?,
)

data class OrderItem(val productId: Long, val quantity: Int)

data class Order(val orderId: UUID, val status: String, val payAmount: Long?)

/** A refusal. `code` is for programs; `properties` of the problem has its facts, such as `available` or `opensAt`. */
class DibsException(val status: HttpStatusCode, val problem: ProblemDetail, val retryAfter: Long?) :
    RuntimeException(problem.detail) {
    val code: String get() = problem.properties?.get("code") as? String ?: "INTERNAL"
}

class Dibs(baseUrl: String, apiKey: String) {
    private val client = RestClient.builder()
        .baseUrl(baseUrl)
        .defaultHeader(HttpHeaders.AUTHORIZATION, "Bearer $apiKey")
        .defaultStatusHandler(HttpStatusCode::isError) { _, response ->
            val problem = mapper.readValue(response.body, ProblemDetail::class.java)
            throw DibsException(response.statusCode, problem, response.headers.getFirst("retry-after")?.toLong())
        }
        .build()

    /** Waits for up to 10 s: ISSUED, or PENDING when the outcome is still to come. */
    fun claim(userId: Long, couponId: Long): Claim =
        post("/coupons/issue", mapOf("userId" to userId, "couponId" to couponId), Claim::class.java)

    fun order(userId: Long, items: List<OrderItem>, userCouponId: UUID? = null): Order {
        val body = mapOf("userId" to userId, "items" to items, "userCouponId" to userCouponId, "pay" to true)
        return post("/orders", body, Order::class.java)
    }

    /** Repeats what may succeed later, under the same key, so that it happens once. */
    private fun <T : Any> post(path: String, body: Any, answer: Class<T>): T {
        val key = UUID.randomUUID().toString()
        repeat(4) {
            try {
                return send(path, body, key, answer)
            } catch (refused: DibsException) {
                if (refused.status.value() !in setOf(429, 503)) throw refused
                Thread.sleep(1_000 * (refused.retryAfter ?: 1))
            }
        }
        return send(path, body, key, answer)
    }

    private fun <T : Any> send(path: String, body: Any, key: String, answer: Class<T>): T =
        client.post().uri(path)
            .contentType(MediaType.APPLICATION_JSON)
            .header("idempotency-key", key)
            .header("prefer", "wait=10")
            .body(body)
            .retrieve()
            .body(answer)!!

    private companion object {
        // ProblemDetailJacksonMixin puts the facts of a problem into `properties`.
        val mapper: ObjectMapper = Jackson2ObjectMapperBuilder.json().build()
    }
}
