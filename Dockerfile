# Builds Tidings and puts it alone into a small image. The build needs nothing but Rust and a C compiler.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY templates templates
COPY src src
COPY tidings.example.toml README.md ./
# The manifest names a test binary and a bench; they are not built here, but they have to be there.
RUN mkdir -p tests/it benches/load && touch tests/it/main.rs benches/load/main.rs
RUN cargo build --release --locked --bin tidings

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/tidings --shell /usr/sbin/nologin tidings
COPY --from=build /build/target/release/tidings /usr/local/bin/tidings
USER tidings
WORKDIR /var/lib/tidings
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/tidings"]
CMD ["serve"]
