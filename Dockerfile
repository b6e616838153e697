# syntax=docker/dockerfile:1
#
# Build for the machines that run the image, not for the one that builds it. Cloud Run and most
# nodes are amd64. The build stage runs on the machine's own processor and compiles for the other, so
# an amd64 image on an Apple-silicon Mac takes no longer than an arm64 one:
#   docker build --platform linux/amd64 -t stream-events:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/stream-events:0.1.0 --push .
# The program alone, for any Linux:
#   docker build --platform linux/amd64 --target program --output out .
# Try it on this machine:
#   docker run --rm --read-only -p 127.0.0.1:8080:8080 -e STREAM_EVENTS_PUSH_AUTH=none \
#     -e STREAM_EVENTS_READ_AUTH=anonymous stream-events:0.1.0
#
# The first line lets older engines (BuildKit of Docker 20.10 to 24) read HEALTHCHECK's
# --start-interval. scripts/check-image runs every other line where no container engine is.

# Both base images are named by digest, so that a build today and one next month have the same base.
# A digest gets no security fixes by itself: .github/dependabot.yml proposes the newer ones.
#
# The newest Rust that the gateway was tried with.
FROM --platform=$BUILDPLATFORM rust:1.95-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0 AS build
# The processor of --platform: amd64 or arm64. The engine sets it.
ARG TARGETARCH
WORKDIR /build
COPY scripts/build-static scripts/build-static
RUN scripts/build-static --setup $TARGETARCH
# First the dependencies alone, around an empty program: four fifths of the build, and a layer that
# no change of the gateway makes stale. A layer rather than a cache mount, since it can be pushed and
# pulled (--cache-to, --cache-from): a fresh builder has no mounts. (The benches are a member of the
# workspace: cargo wants to see their files, though it compiles nothing of them.)
COPY Cargo.toml Cargo.lock ./
COPY benches benches
RUN mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && scripts/build-static $TARGETARCH
# Then the gateway. COPY keeps the files' times, which may be older than the empty program's, and
# cargo goes by them: without the touch the empty program would be the image.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && scripts/build-static $TARGETARCH \
    && cp target/*-linux-musl/dist/stream-events stream-events

# The program alone, to copy out of the build (--target program).
FROM scratch AS program
COPY --from=build /build/stream-events /stream-events

# CA certificates, to fetch the push tokens' keys over https: all that the program needs, and nothing
# that an intruder could use. There is neither a shell nor a C library.
FROM gcr.io/distroless/static-debian13:nonroot@sha256:1c2c046bc09ed40fad370b599a0b1ae7987f55b01e247cf27a7c27cd97e5bbc7
# docker build --platform linux/amd64 --build-arg REVISION=$(git rev-parse HEAD) \
#     --build-arg SOURCE=https://... -t stream-events:0.1.0 .
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
LABEL org.opencontainers.image.title="stream-events" \
      org.opencontainers.image.description="Pub/Sub messages in, server-sent events out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian13:nonroot" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=program /stream-events /stream-events
# mimalloc, the static program's allocator, keeps freed memory for itself unless told otherwise: an
# idle stream took 1,560 bytes, and 420 with these.
# https://github.com/microsoft/mimalloc#environment-options
ENV MIMALLOC_ARENA_EAGER_COMMIT=0 MIMALLOC_PURGE_DELAY=0
# The image's user "nonroot", by number: with runAsNonRoot Kubernetes refuses a name, since it
# cannot tell which user a name stands for. Nothing is ever written: run it with a read-only root.
USER 65532:65532
# 8080: push in, events out. 9090: metrics and health, not for the public.
EXPOSE 8080 9090
# Begins the drain: 8 s by default, and docker stop waits 10 s by default.
STOPSIGNAL SIGTERM
# For Docker. The command asks /readyz of the container's first process, on its ops listener, also
# when --ops-listen was given to that process as an argument. So it says whether the gateway is
# ready; a worker that hangs shows only at /healthz (of the ops listener, whose thread is no
# worker). Kubernetes ignores HEALTHCHECK: its readinessProbe asks /readyz, and its livenessProbe
# /healthz (k8s/base). It gives up after 3 s, so Docker waits 5 s. In the first 30 s failures do not
# count, since the gateway fetches the push tokens' keys, and Docker asks every second: what waits
# for a healthy container waits no longer than it must. (Docker before 25 ignores --start-interval
# and asks every 10 s.)
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["/stream-events", "healthcheck"]
ENTRYPOINT ["/stream-events"]
# The gateway wants --push-auth and --read-auth, as flags or in the environment, and ends with exit
# code 64 and a message when one is missing.
CMD ["serve"]
