//! See `stream_events_fuzz::targets::read_token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    stream_events_fuzz::targets::read_token::run(input);
});
