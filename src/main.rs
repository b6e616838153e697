//! Program `stream-events`: reads the arguments, runs the subcommand, and returns its exit code.

use std::process::ExitCode;

use stream_events::cli::{self, Command};

// The static program uses mimalloc: musl's own allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os(), &cli::environment()) {
        Ok(Command::Gateway(config)) => cli::serve::run(*config),
        Ok(Command::Publish(publish)) => cli::publish::run(&publish),
        Ok(Command::Tail(tail)) => cli::tail::run(tail),
        Ok(Command::Token(token)) => cli::token::run(&token),
        Ok(Command::Check(check)) => cli::check::run(*check),
        Ok(Command::Generate(generate)) => cli::generate::run(&generate, cli::command()),
        Ok(Command::Healthcheck(url)) => cli::healthcheck::run(&url),
        Err(err) => err.report(),
    }
}
