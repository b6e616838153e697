# docker build -t stream-events:0.1.0 .        (BuildKit, for the cache mounts)
# docker run --rm -p 8080:8080 stream-events:0.1.0 serve --push-auth none --read-auth anonymous

# The newest Rust that the gateway was tried with. Debian bookworm is Debian 12, as in the final
# image: a binary built against a newer glibc would not start there. The slim image has the one tool
# beside Rust that the build needs, gcc (for aws-lc-sys, the cryptography).
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# .dockerignore lets through only what cargo needs.
COPY . .
# The dependencies stay compiled in the cache mounts, so a change of the source compiles only the
# gateway. sharing=locked: two builds at once must not write the same files. A mount is not part of
# the image, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked --bin stream-events \
    && cp target/release/stream-events /stream-events

# glibc, libgcc and the CA certificates (to fetch the push tokens' keys over https): all that the
# binary needs, and nothing an intruder could use; there is not even a shell.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="stream-events" \
      org.opencontainers.image.description="Pub/Sub messages in, server-sent events out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /stream-events /stream-events
# glibc keeps what large events were in for itself, unless told to give large blocks back: after a burst
# of 10 MB events and slow readers 426 MB stayed, and 19 MB with these.
ENV MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
# The image's user "nonroot", by number: with runAsNonRoot Kubernetes refuses a name, since it cannot
# tell which user a name stands for.
USER 65532:65532
# 8080: push in, events out. 9090: metrics and health, not for the public.
EXPOSE 8080 9090
# Begins the drain: 8 s by default, and docker stop waits 10 s by default.
STOPSIGNAL SIGTERM
# For Docker; Kubernetes has probes of its own. 5 s is more than the 3 s after which the command gives
# up by itself. In the first 30 s failures do not count: the push tokens' keys are being fetched.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/stream-events", "healthcheck"]
ENTRYPOINT ["/stream-events"]
# Wants --push-auth and --read-auth, as flags or in the environment; it says so if they are missing.
CMD ["serve"]
