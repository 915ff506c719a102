# syntax=docker/dockerfile:1
FROM rust:1.95.0-bookworm AS build
# pg_query compiles PostgreSQL's parser and reads its headers through libclang.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# The target directory is a cache, so the binary is copied out of it in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin keyway \
    && cp target/release/keyway /usr/local/bin/keyway

FROM debian:12.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin keyway
COPY --from=build /usr/local/bin/keyway /usr/local/bin/keyway
COPY config/docker/keyway.toml /etc/keyway/keyway.toml
USER keyway
EXPOSE 6432 9432
ENTRYPOINT ["keyway"]
CMD ["run", "--config", "/etc/keyway/keyway.toml"]
