//! Tests of `src/backplane`: several replicas that share a log in Redis.

mod append_answers;
mod chaos;
mod log_changes;
mod log_faults;
mod log_settings;
mod presence;
mod reading;
pub mod replicas;
mod shared_calls;
