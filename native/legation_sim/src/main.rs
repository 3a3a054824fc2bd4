//! Runs seeds until its time is over, and says what they came to. A failing one is printed with what happened last.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use legation_sim::ledger::Violation;
use legation_sim::stats::Stats;
use legation_sim::world::World;

/// Realms of the real cores in virtual time, under faults.
#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// One seed alone, with its whole trace.
    #[arg(long)]
    seed: Option<u64>,
    /// How long to go on, in seconds of real time.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How many seeds at most.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; the others follow it. Drawn, if it isn't given.
    #[arg(long)]
    from: Option<u64>,
    /// Virtual seconds in which there are faults. Each seed draws its own, if it isn't given.
    #[arg(long)]
    active: Option<u64>,
    /// Cores to be used.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whoever panics is found by the run.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    if let Some(seed) = arguments.seed {
        return alone(seed, arguments.active);
    }
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let from = arguments.from.unwrap_or_else(drawn);
    println!("seeds from {from} on, {jobs} at a time, for {} s", arguments.seconds);
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new(Stats::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let over = begun.elapsed() >= Duration::from_secs(arguments.seconds);
                if over || arguments.seeds.is_some_and(|seeds| number >= seeds) || failed.load(Ordering::Relaxed) {
                    return;
                }
                let mut world = World::new(from.wrapping_add(number), arguments.active);
                let violation = legation_sim::run(&mut world);
                let mut all = all.lock().expect("no run panics past its own");
                if let Some(violation) = violation {
                    if !failed.swap(true, Ordering::Relaxed) {
                        tell(&world, &violation);
                    }
                }
                world.stats.seeds = 1;
                all.add(&world.stats);
            });
        }
    });
    let stats = all.into_inner().expect("no run panics past its own");
    let core_hours = begun.elapsed().as_secs_f64() * jobs as f64 / 3_600.0;
    println!("{stats}");
    println!(
        "in {:.0} s on {jobs} cores: {:.1} million delivered and {:.0} thousand faults per core-hour",
        begun.elapsed().as_secs_f64(),
        stats.delivered as f64 / core_hours / 1e6,
        stats.all_faults() as f64 / core_hours / 1e3
    );
    match failed.into_inner() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn alone(seed: u64, active: Option<u64>) -> ExitCode {
    let mut world = World::new(seed, active);
    world.trace.loud = true;
    let violation = legation_sim::run(&mut world);
    world.stats.seeds = 1;
    println!("{}", world.stats);
    match violation {
        Some(violation) => {
            println!("{:?}: {}", violation.invariant, violation.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Enough to go on with: the seed, the plan, the last that happened.
fn tell(world: &World, violation: &Violation) {
    for line in world.trace.last() {
        println!("{line}");
    }
    println!("{:#?}", world.plan);
    println!("seed {} fails: {:?}: {}", world.seed, violation.invariant, violation.what);
    println!("again: make sim SEED={}", world.seed);
}

fn drawn() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    // Short enough to be written down.
    u64::from_le_bytes(bytes) % 1_000_000_000
}
