# One image for both programs: dibs-api, the default, and `dibs-worker run`. It holds these, the libraries that they are
# linked with, and certificates: no shell, no package manager.
FROM rust:1-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /source
# rustup takes the toolchain that this file names.
COPY rust-toolchain.toml ./
# dibs-worker/kafka-tls supports TLS and SCRAM to Kafka brokers. It builds OpenSSL, which needs perl.
ARG FEATURES=dibs-worker/kafka

# Dependencies, beside sources that are empty: this layer is built again only after a change of a manifest.
COPY Cargo.toml Cargo.lock ./
COPY api/Cargo.toml api/
COPY common/Cargo.toml common/
COPY loadtest/Cargo.toml loadtest/
COPY worker/Cargo.toml worker/
RUN for crate in api common loadtest worker; do \
      mkdir -p "$crate/src" "$crate/tests/it"; \
      touch "$crate/src/lib.rs"; \
      echo 'fn main() {}' | tee "$crate/src/main.rs" >"$crate/tests/it/main.rs"; \
    done; \
    cargo build --release --locked --package dibs-api --package dibs-worker --features "$FEATURES"; \
    # The sources that come now are older than what was built of these.
    cargo clean --release --package dibs-api --package dibs-common --package dibs-worker; \
    rm -r api common loadtest worker

COPY . .
# The label `commit` of dibs_build_info.
ARG DIBS_COMMIT=unknown
RUN cargo build --release --locked --package dibs-api --package dibs-worker --features "$FEATURES"

# For scanners: what came from Debian (dpkg), and every crate (Cargo.lock).
RUN mkdir -p /image/etc/ssl/certs /image/usr/share/doc/dibs /image/var/lib/dpkg/status.d; \
    install -D -t /image/usr/local/bin target/release/dibs-api target/release/dibs-worker; \
    ldd target/release/dibs-api target/release/dibs-worker | grep -o '/lib[^ )]*' | sort -u \
      | xargs cp --parents --dereference -t /image; \
    # For TLS to Redis, receivers and the payment gateway.
    cp --dereference /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    cp --dereference /etc/os-release /image/etc/; \
    echo 'dibs:x:65532:65532::/:/' >/image/etc/passwd; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    for package in libc6 libgcc-s1 ca-certificates; do dpkg -s "$package" >"/image/var/lib/dpkg/status.d/$package"; done; \
    cp Cargo.lock LICENSE-APACHE LICENSE-MIT /image/usr/share/doc/dibs/

FROM scratch
ARG DIBS_COMMIT=unknown
LABEL org.opencontainers.image.title=Dibs \
      org.opencontainers.image.description="A back end for first-come coupons: dibs-api and dibs-worker" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision=$DIBS_COMMIT
COPY --from=build /image /
ENV PATH=/usr/local/bin API_ADDRESS=0.0.0.0:8080 WORKER_ADDRESS=0.0.0.0:8081
EXPOSE 8080 8081
USER 65532:65532
CMD ["dibs-api"]
