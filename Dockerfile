# syntax=docker/dockerfile:1
#
# The image of the gateway: one binary on a base without a shell, as a user who is nobody, on a root that may be read-only.
#
#     docker build --tag bonito-gateway .
#     docker run --read-only --tmpfs /tmp --volume bonito:/var/lib/bonito --publish 127.0.0.1:8001:8001 bonito-gateway
#
# What is linked into the binary is written in it: `cargo audit bin bonito`, and scanners of images, read it there.

FROM rust:1.95-bookworm AS build
# The version that scripts/sbom uses, too.
RUN cargo install --locked cargo-auditable --version 0.7.7
WORKDIR /source
COPY . .
# Everything but the binary stays in the cache, so that a change of ours does not build the world anew.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo auditable build --locked --profile dist --bin bonito \
    && install -D target/dist/bonito /image/usr/local/bin/bonito \
    && install -d -m 0700 /image/var/lib/bonito

# glibc and CA certificates of the release it was built on, and nothing that could be run.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Bonito Gateway" \
      org.opencontainers.image.description="One OpenAI-compatible door in front of every model provider" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/usr/local/bin/bonito /usr/local/bin/bonito
# A volume that is mounted here for the first time takes its owner from this folder.
COPY --from=build --chown=65532:65532 /image/var/lib/bonito /var/lib/bonito
USER 65532:65532
ENV BONITO_SERVER_LISTEN=0.0.0.0:8001 \
    BONITO_OPERATIONS_LISTEN=0.0.0.0:8002 \
    BONITO_DATA_DIR=/var/lib/bonito \
    BONITO_TELEMETRY_LOG_FORMAT=json
VOLUME /var/lib/bonito
# The API. Operations are at 8002: they have no authentication, and are not published.
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/bonito", "health"]
ENTRYPOINT ["/usr/local/bin/bonito"]
CMD ["serve"]
