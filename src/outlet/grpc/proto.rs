//! Messages of the interface, which are generated from the files in `proto/`. The test
//! `outlet::grpc_generated` compares them.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    reason = "the code is generated"
)]

/// Package `stream_events.v1`.
pub(super) mod stream_events {
    include!("generated/stream_events.v1.rs");
}

/// Package `grpc.health.v1`.
pub(super) mod health {
    include!("generated/grpc.health.v1.rs");
}

/// Package `grpc.reflection.v1`. The messages of `grpc.reflection.v1alpha` are the same.
pub(super) mod reflection {
    include!("generated/grpc.reflection.v1.rs");
}

/// Descriptors of all files, as a `FileDescriptorSet`.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
