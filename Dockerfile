# One image for both programs. Its command is dibs-api (the default) or dibs-worker run.
# The version of rust-toolchain.toml; a test compares them.
ARG RUST_VERSION=1.95.0
FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /source
COPY . .
# dibs-worker/kafka-tls supports TLS and SCRAM to Kafka brokers. It builds OpenSSL, which needs perl.
ARG FEATURES=dibs-worker/kafka
# The label `commit` of dibs_build_info.
ARG DIBS_COMMIT=unknown
RUN cargo build --release --locked --package dibs-api --package dibs-worker --features "$FEATURES"

FROM debian:bookworm-slim
# For TLS to Redis, receivers and the payment gateway.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /source/target/release/dibs-api /source/target/release/dibs-worker /usr/local/bin/
ENV API_ADDRESS=0.0.0.0:8080 WORKER_ADDRESS=0.0.0.0:8081
EXPOSE 8080 8081
USER 65532:65532
CMD ["dibs-api"]
