//! Our scan against the `erl` of the path, for so many seconds: `differential SECONDS [SEED]`. Status 1 if anything is not explained.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use legation_fuzz::differential::{generate, Beam, Report};

const AT_ONCE: usize = 256;
/// Atoms stay for ever in a VM.
const PER_VM: u64 = 400_000;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(20);
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    match run(Duration::from_secs(seconds), seed) {
        Ok(report) => {
            println!("differential, seed {seed}: {report}");
            for finding in &report.findings {
                let hex: String = finding.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("finding: {hex}: we say {:?}, a BEAM {:?}", finding.ours, finding.theirs);
            }
            ExitCode::from(u8::from(!report.findings.is_empty()))
        }
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration, seed: u64) -> std::io::Result<Report> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut report = Report::default();
    let begun = Instant::now();
    while begun.elapsed() < time && report.findings.len() < 20 {
        let mut beam = Beam::start()?;
        let until = report.inputs + PER_VM;
        while begun.elapsed() < time && report.inputs < until && report.findings.len() < 20 {
            let inputs: Vec<Vec<u8>> = (0..AT_ONCE).map(|_| generate(&mut random)).collect();
            report.ask(&mut beam, &inputs)?;
        }
    }
    Ok(report)
}
