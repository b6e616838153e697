# syntax=docker/dockerfile:1
#
# Build for the machines that run the image, not for the one that builds it. Cloud Run and most
# nodes are amd64; without --platform an Apple-silicon Mac makes an arm64 image, which does not
# start there ("exec format error"):
#   docker build --platform linux/amd64 -t stream-events:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/stream-events:0.1.0 --push .
# Try it on this machine:
#   docker run --rm --read-only -p 127.0.0.1:8080:8080 -e STREAM_EVENTS_PUSH_AUTH=none \
#     -e STREAM_EVENTS_READ_AUTH=anonymous stream-events:0.1.0
#
# The first line lets older engines (BuildKit of Docker 20.10 to 24) read HEALTHCHECK's
# --start-interval. scripts/check-image runs every other line where no container engine is.

# Both base images are named by digest, so that a build today and one next month have the same base.
# A digest gets no security fixes by itself: .github/dependabot.yml proposes the newer ones.
#
# The newest Rust that the gateway was tried with. Debian trixie is Debian 13, as in the final
# image: a binary built against a newer glibc would not start there. The slim image has the one tool
# beside Rust that the build needs, gcc (for aws-lc-sys, the cryptography).
FROM rust:1.95-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0 AS build
WORKDIR /build
# First the dependencies alone, around an empty program: four fifths of the build, and a layer that
# no change of the gateway makes stale. A layer rather than a cache mount, since it can be pushed and
# pulled (--cache-to, --cache-from): a fresh builder has no mounts. (The benches are a member of the
# workspace: cargo wants to see their files, though it compiles nothing of them.)
COPY Cargo.toml Cargo.lock ./
COPY benches benches
RUN mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --profile dist --locked --features pull --bin stream-events
# Then the gateway. COPY keeps the files' times, which may be older than the empty program's, and
# cargo goes by them: without the touch the empty program would be the image.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --profile dist --locked --features pull --bin stream-events \
    && strip target/dist/stream-events

# glibc, libgcc and the CA certificates (to fetch the push tokens' keys over https): all that the
# binary needs, and nothing an intruder could use; there is not even a shell.
FROM gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2
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
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/dist/stream-events /stream-events
# glibc keeps what large events were in for itself, unless told to give large blocks back: after a
# burst of 10 MB events and slow readers 426 MB stayed, and 19 MB with these.
ENV MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
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
