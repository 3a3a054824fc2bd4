//! A measurement, not a check: `cargo test --release -p legation_channel throughput -- --ignored --nocapture`.

use std::time::Instant;

use crate::pair::{Pair, PROFILES};

#[test]
#[ignore = "a measurement"]
fn throughput_of_seal_and_open() {
    const TOTAL_BYTES: usize = 512 << 20;
    for profile in PROFILES {
        for piece_bytes in [1 << 10, 64 << 10, 1 << 20] {
            let mut pair = Pair::established(profile, 0);
            let piece = vec![0x5a; piece_bytes];
            let pieces_per_flush = (256_usize << 10).div_ceil(piece_bytes);
            let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
            let (mut sealing, mut opening) = (0.0, 0.0);
            for _ in 0..TOTAL_BYTES / (piece_bytes * pieces_per_flush) {
                wire.clear();
                plaintext.clear();
                let start = Instant::now();
                for _ in 0..pieces_per_flush {
                    pair.initiator.seal(&piece, &mut wire).unwrap();
                }
                sealing += start.elapsed().as_secs_f64();
                let start = Instant::now();
                pair.responder.handle_bytes(&wire, &mut plaintext).unwrap();
                opening += start.elapsed().as_secs_f64();
                assert_eq!(plaintext.len(), piece_bytes * pieces_per_flush);
            }
            let gigabytes = TOTAL_BYTES as f64 / 1e9;
            println!(
                "{profile:?} {:>4} KiB: seal {:.2} GB/s, open {:.2} GB/s",
                piece_bytes >> 10,
                gigabytes / sealing,
                gigabytes / opening
            );
        }
    }
}
