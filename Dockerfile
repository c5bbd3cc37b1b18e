# One image for both processes; what it runs is its command: dibs-api (the default), or dibs-worker run.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
# dibs-worker/kafka-tls for brokers that are spoken to over TLS, or by SCRAM: it builds OpenSSL, for which perl is needed.
ARG FEATURES=dibs-worker/kafka
RUN cargo build --release --locked --package dibs-api --package dibs-worker --features "$FEATURES"

FROM debian:bookworm-slim
# For rediss:// and https:// receivers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /source/target/release/dibs-api /source/target/release/dibs-worker /usr/local/bin/
ENV API_ADDRESS=0.0.0.0:8080 WORKER_ADDRESS=0.0.0.0:8081
EXPOSE 8080 8081
USER 65532:65532
CMD ["dibs-api"]
