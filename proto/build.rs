//! Generates the messages, their JSON mapping and the service traits from `chaski/v1/*.proto`.

use prost::Message as _;
use std::{env, error::Error, fs::File, path::PathBuf};

const FILES: [&str; 5] = [
    "chaski/v1/client.proto",
    "chaski/v1/log.proto",
    "chaski/v1/stored.proto",
    "chaski/v1/services.proto",
    "chaski/v1/relay.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=chaski");
    let schema = protox::compile(FILES, ["."])?;
    let encoded = schema.encode_to_vec();

    let mut prost = prost_build::Config::new();
    prost.bytes(["."]);
    prost.compile_well_known_types();
    prost.extern_path(".google.protobuf.Timestamp", "crate::Timestamp");
    tonic_prost_build::configure().compile_fds_with_config(schema, prost)?;

    // A member of a client frame that this server does not know is an unknown command, so only
    // that message refuses unknown fields; everywhere else a newer peer's fields are ignored.
    let write = |name: &'static str| move |_: &_| File::create(out().join(name));
    json(&encoded)?.generate(&[".chaski.v1.ClientFrame"], write("client_frame.serde.rs"))?;
    json(&encoded)?
        .ignore_unknown_fields()
        .exclude([".chaski.v1.ClientFrame"])
        .generate(&[".chaski.v1"], write("serde.rs"))?;
    std::fs::write(out().join("descriptors.bin"), encoded)?;
    Ok(())
}

fn out() -> PathBuf {
    env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts").into()
}

fn json(schema: &[u8]) -> Result<pbjson_build::Builder, Box<dyn Error>> {
    let mut builder = pbjson_build::Builder::new();
    builder.register_descriptors(schema)?;
    builder.emit_fields().extern_path(".google.protobuf.Timestamp", "crate::Timestamp");
    Ok(builder)
}
