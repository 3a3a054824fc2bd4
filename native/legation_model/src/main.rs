//! Goes through all states of some cases, and says how many there were and what did not hold.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use legation_model::action::{Bounds, Who};
use legation_model::model::Interleavings;
use stateright::{Checker, Model};

/// All interleavings of small cases of the real cores.
#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// How long to go on, in seconds of real time. What has not been begun by then is left out.
    #[arg(long, default_value_t = 1_200)]
    seconds: u64,
    /// Cores to be used.
    #[arg(long)]
    jobs: Option<usize>,
    /// One case alone, by its number.
    #[arg(long)]
    case: Option<usize>,
}

const ONCE: Bounds = Bounds { publications: 1, withdrawals: 1, ..Bounds::NONE };

/// From small to large.
const CASES: [Bounds; 15] = [
    Bounds { publications: 2, ..ONCE },
    Bounds { engines: 2, publications: 2, ..ONCE },
    Bounds { restarts: 1, ..ONCE },
    Bounds { breaks: 1, ..ONCE },
    Bounds { dials: Who::Alice, breaks: 1, ..ONCE },
    Bounds { breaks: 1, all_breaks: true, ..ONCE },
    Bounds { breaks: 1, graces: 1, ..ONCE },
    Bounds { publications: 2, breaks: 1, ..ONCE },
    Bounds { withdrawals: 0, breaks: 2, ..ONCE },
    // A call brings keys and acknowledgements in both directions.
    Bounds { calls: 1, ..ONCE },
    Bounds { engines: 2, publications: 2, breaks: 1, ..ONCE },
    Bounds { calls: 1, breaks: 1, ..ONCE },
    Bounds { dials: Who::Alice, calls: 1, breaks: 1, ..ONCE },
    Bounds { calls: 1, restarts: 1, ..ONCE },
    Bounds { calls: 1, breaks: 1, graces: 1, ..ONCE },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let begun = Instant::now();
    let (mut states, mut cases, mut failed) = (0, 0, 0);
    for (number, bounds) in (1..).zip(CASES) {
        let left = Duration::from_secs(arguments.seconds).saturating_sub(begun.elapsed());
        if arguments.case.is_some_and(|case| case != number) || left.is_zero() {
            continue;
        }
        let model = Interleavings { bounds, planted: None };
        let started = Instant::now();
        let checker = model.clone().checker().threads(jobs).timeout(left).spawn_dfs().join();
        let whole = started.elapsed() < left;
        println!(
            "case {number}: {bounds}\n  {} states, {} steps, up to {} deep, {} properties, {:.1} s{}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            model.properties().len(),
            started.elapsed().as_secs_f64(),
            if whole { "" } else { ": NOT ALL OF THEM, the time is over" }
        );
        states += checker.unique_state_count();
        cases += usize::from(whole);
        failed += report(&model, &checker, whole);
    }
    println!(
        "{cases} cases whole, {states} states in {:.0} s, {failed} properties that do not hold",
        begun.elapsed().as_secs_f64()
    );
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// How many properties don't hold. `whole`: what has to be seen has to have been seen.
fn report(model: &Interleavings, checker: &impl Checker<Interleavings>, whole: bool) -> usize {
    let mut failed = 0;
    for property in model.properties() {
        let discovery = checker.discovery(property.name);
        let wanted = property.expectation == stateright::Expectation::Sometimes;
        match discovery {
            Some(path) if !wanted => {
                failed += 1;
                let actions = path.into_actions();
                println!("  DOES NOT HOLD: {}", property.name);
                actions.iter().for_each(|action| println!("    {action:?}"));
                println!("  {:?}", model.facts(&actions));
            }
            None if wanted && whole => {
                failed += 1;
                println!("  NEVER SEEN: {}", property.name);
            }
            _ => {}
        }
    }
    failed
}
