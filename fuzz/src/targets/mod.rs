//! What each target does with an input. Each function stops the program when what it tries is not
//! as promised, and else says what became of the input, in a word or two: the names of the seeds
//! begin with it.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are in this century, and checked where they are not"
)]

use super::{jwks, parser};

mod cloud_event;
pub mod envelope;
pub mod filter;
pub mod frame;
pub mod names;
pub mod publish;
pub mod push_token;
pub mod query;
pub mod read_token;
pub mod signed;
