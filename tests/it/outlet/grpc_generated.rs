//! The generated code of gRPC: it is committed, so that a build needs no `protoc`, and is compared
//! with what the files in `proto/` give.

use std::{env, fs, path::Path};

use prost::Message as _;

/// Files whose messages the gateway uses. The messages of `v1alpha` are those of `v1`, so its file
/// is only described.
const COMPILED: [&str; 3] = [
    "stream_events/v1/stream_events.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
];
const DESCRIBED: [&str; 1] = ["grpc/reflection/v1alpha/reflection.proto"];

#[test]
fn generated_code_is_that_of_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("proto");
    let made = tempfile::tempdir().unwrap();
    let files = protox::compile(COMPILED, [&proto]).unwrap();
    let mut config = prost_build::Config::new();
    config.out_dir(made.path()).bytes(["."]).btree_map(["."]).compile_fds(files).unwrap();
    let mut all = protox::compile(COMPILED.iter().chain(&DESCRIBED), [&proto]).unwrap();
    for file in &mut all.file {
        // Comments are not part of what reflection answers.
        file.source_code_info = None;
    }
    fs::write(made.path().join("descriptors.bin"), all.encode_to_vec()).unwrap();
    let committed = root.join("src/outlet/grpc/generated");
    let mut names: Vec<_> =
        fs::read_dir(made.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert!(names.iter().any(|name| name == "stream_events.v1.rs"), "{names:?}");
    if env::var_os("REGENERATE").is_some() {
        fs::create_dir_all(&committed).unwrap();
        for name in &names {
            fs::copy(made.path().join(name), committed.join(name)).unwrap();
        }
    }
    for name in &names {
        let [new, old] = [made.path(), &committed].map(|folder| fs::read(folder.join(name)));
        assert!(
            new.unwrap() == old.unwrap_or_default(),
            "{name:?} differs: run REGENERATE=1 cargo test --test it grpc_generated",
        );
    }
    let mut others: Vec<_> =
        fs::read_dir(&committed).unwrap().map(|file| file.unwrap().file_name()).collect();
    others.sort();
    assert_eq!(others, names, "src/outlet/grpc/generated has other files");
}
