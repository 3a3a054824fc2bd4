#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (legation_fuzz::targets::answer::TARGET.run)(input));
