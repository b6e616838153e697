//! The floor: what no server that writes to sockets can go below. One epoll loop, plain `send`,
//! bytes that were rendered once, and next to nothing of HTTP.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use stream_events_bench::{Result, floor::Floor};

#[derive(Parser)]
#[command(about = "The least that a server of event streams can do")]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// Loses every so many-th message, to see that the load generator notices.
    #[arg(long, hide = true)]
    drop_every: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { listen, drop_every } = Arguments::parse();
    match run(listen, drop_every) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("floor: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the address, which the system chooses if the port is 0, and serves.
fn run(listen: SocketAddr, drop_every: Option<u64>) -> Result<()> {
    let mut floor = Floor::bind(listen, drop_every)?;
    println!("{}", floor.address()?);
    floor.run()
}
