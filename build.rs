//! Compiles `proto/` with protox, a compiler of protocol buffers in Rust, so that no `protoc` is needed anywhere. The descriptor set, with
//! its comments and custom options, is kept for reflection and for the gateway.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");

    let mut files: Vec<PathBuf> = fs::read_dir("proto/offboard/v1")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    // Not imported by any service, but carried by every error: with it in the set, reflection can show the details of an error.
    files.push("proto/google/rpc/error_details.proto".into());
    files.push("proto/google/rpc/status.proto".into());

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;

    let descriptor_set = PathBuf::from(env::var("OUT_DIR")?).join("offboard.descriptor.bin");
    fs::write(descriptor_set, compiler.encode_file_descriptor_set())?;

    // The codec finds the guard of a message by its name.
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::BoundedCodec")
        .build_transport(false)
        // Flat in memory, where the generated type has a node for each value.
        .extern_path(".google.protobuf.Struct", "crate::proto::object::Struct")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
