# One image for both processes; what it runs is its command: dibs-api (the default), or dibs-worker run.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package dibs-api --package dibs-worker

FROM debian:bookworm-slim
# For rediss:// and https:// receivers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /source/target/release/dibs-api /source/target/release/dibs-worker /usr/local/bin/
ENV API_ADDRESS=0.0.0.0:8080 WORKER_ADDRESS=0.0.0.0:8081
EXPOSE 8080 8081
USER 65532:65532
CMD ["dibs-api"]
