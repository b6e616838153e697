//! How many bytes of its heap the gateway has in use: before, with and after idle streams. It runs
//! in this process, under an allocator that counts; its readers are in another.

use std::{
    alloc::System,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    thread::sleep,
    time::Duration,
};

use cap::Cap;
use clap::Parser;
use serde_json::json;
use stream_events_bench::{
    Result,
    client::Client,
    dialect::{Dialect, Target},
    gateway,
    process::rest,
    socket::raise_file_limit,
    tally::Shape,
};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Parser)]
#[command(about = "Bytes in use of the gateway's heap, around idle streams")]
struct Arguments {
    #[arg(default_value_t = 5_000)]
    streams: usize,
    /// The readers use WebSockets.
    #[arg(long)]
    websocket: bool,
    /// In the readers' process: the gateway.
    #[arg(long, hide = true)]
    hold: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let Arguments { streams, websocket, hold } = Arguments::parse();
    raise_file_limit();
    let done = match hold {
        None => measure(streams, websocket),
        Some(address) if websocket => hold_websockets(address, streams),
        Some(address) => hold_streams(address, streams),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("heap: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Long enough for a gateway to notice that its readers are gone.
const NOTICE: Duration = Duration::from_secs(2);

fn measure(streams: usize, websocket: bool) -> Result<()> {
    let address = gateway::start(&[("workers", "1"), ("subscribers-max", "50000")])?;
    // The first round makes what stays: the threads' own, and room in tables.
    let mut rounds = Vec::new();
    for _ in 0..2 {
        sleep(NOTICE);
        let before = HEAP.allocated();
        let mut readers = Command::new(std::env::current_exe()?)
            .args([&streams.to_string(), "--hold", &address.to_string()])
            .args(websocket.then_some("--websocket"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ends = readers.stdin.take().zip(readers.stdout.take());
        let (stdin, stdout) = ends.ok_or("the readers' process has no pipes")?;
        let with = while_open(stdin, stdout)?;
        readers.wait()?;
        sleep(NOTICE);
        let after = HEAP.allocated();
        let (grown, left) = (with.saturating_sub(before), after.saturating_sub(before));
        rounds.push(json!({
            "streams": streams,
            "heap_before": before,
            "heap_with": with,
            "heap_after": after,
            "heap_per_stream": grown as f64 / streams as f64,
            "left_of_growth": left as f64 / grown as f64,
        }));
    }
    for round in rounds {
        println!("{round}");
    }
    Ok(())
}

fn while_open(stdin: ChildStdin, stdout: ChildStdout) -> Result<usize> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "open" {
        return Err("the readers did not open their streams".into());
    }
    sleep(Duration::from_millis(500));
    let with = HEAP.allocated();
    // Its end tells them to leave.
    drop(stdin);
    Ok(with)
}

fn hold_streams(address: SocketAddr, streams: usize) -> Result<()> {
    let target =
        Target { dialect: Dialect::Gateway, address, token: None, attributes: None, filter: None };
    let shape = Shape { streams, topics: 1, per_stream: 1 };
    let mut client = Client::new(target, shape, 200, 0, 0)?;
    client.open(0..streams, None)?;
    println!("open");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    rest(&mut client, Duration::from_millis(10))
}

/// Holds WebSockets, each with one stream, once each has received its first message.
fn hold_websockets(address: SocketAddr, count: usize) -> Result<()> {
    const HANDSHAKE: &[u8] = b"GET /ws?topic=topic-0 HTTP/1.1\r\nHost: localhost\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(HANDSHAKE)?;
        let (mut received, mut part) = (Vec::new(), [0; 1024]);
        while !received.windows(6).any(|text| text == b"\"open\"") {
            let read = socket.read(&mut part)?;
            received.extend_from_slice(
                part.get(..read).filter(|read| !read.is_empty()).ok_or("closed")?,
            );
        }
        sockets.push(socket);
    }
    println!("open");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
