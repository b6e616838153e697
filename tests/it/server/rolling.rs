//! Readers behind nginx, while nginx is reloaded and while gateways are restarted one by one: as an
//! `EventSource` does, they come back after the time they were told, with the last id they have.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::task::{JoinHandle, LocalSet};

use crate::{
    net::proxies::Chain,
    support::{
        http2::Http2,
        nginx::Nginx,
        process::{Process, stream_events},
        redis::{RedisServer, free_port},
        tls::Certificate,
    },
};

const LIMIT: Duration = Duration::from_secs(60);
const LAST: &str = "the last";

/// What readers and the publisher know of each other.
#[derive(Default)]
struct World {
    /// Of all readers: how many streams were opened, those that were refused for now too.
    opened: Cell<usize>,
    /// How many are open now.
    open: Cell<usize>,
    acked: RefCell<Vec<String>>,
    /// Pushes that were not acked, and came again.
    again: Cell<usize>,
    /// Whether the next push is the last.
    enough: Cell<bool>,
}

/// What a reader saw.
#[derive(Default)]
struct Saw {
    data: Vec<String>,
    gaps: usize,
    connections: usize,
    /// Those that ended before they had begun.
    refused: usize,
}

/// Reads until it has seen the last event.
async fn read(client: Http2, world: Rc<World>) -> Saw {
    let (mut saw, mut id, mut retry) = (Saw::default(), String::new(), 0);
    loop {
        // An error of the network is no end either: it tries again.
        if let Ok(mut events) = client.events(&id).await {
            assert_eq!(events.status, 200, "an EventSource would have given up");
            saw.connections += 1;
            let mut is_open = false;
            while let Some(event) = events.next_raw().await {
                match &*event.event {
                    "stream-open" => {
                        is_open = true;
                        world.opened.set(world.opened.get() + 1);
                        world.open.set(world.open.get() + 1);
                    }
                    "stream-gap" => saw.gaps += 1,
                    "message" => saw.data.push(event.data),
                    _ => {}
                }
                if saw.data.last().is_some_and(|data| data == LAST) {
                    return saw;
                }
            }
            if is_open {
                world.open.set(world.open.get() - 1);
            } else {
                saw.refused += 1;
            }
            id.clone_from(&events.parser.last_event_id);
            retry = events.parser.retry.unwrap_or(retry);
        }
        tokio::time::sleep(Duration::from_millis(retry)).await;
    }
}

/// Pushes one message after the other, each until it is acked.
async fn publish(client: Http2, world: Rc<World>) {
    let mut last = false;
    while !last {
        let n = world.acked.borrow().len();
        last = world.enough.get();
        let text = if last { LAST.to_owned() } else { format!("event {n}") };
        loop {
            let answer = client.push(&text, &format!("message-{n}")).await;
            if matches!(answer, Ok(204)) {
                break;
            }
            world.again.set(world.again.get() + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.acked.borrow_mut().push(text);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something is so, and lets the others go on meanwhile.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `disturb` is called when all have read something; in the end each reader has all that was acked,
/// once, in order, and was told of no gap.
fn nobody_loses_anything(
    client: &Http2,
    readers: usize,
    disturb: impl AsyncFnOnce(&World),
) -> Vec<Saw> {
    let world = Rc::new(World::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let saw = LocalSet::new().block_on(&runtime, async {
        let reading: Vec<JoinHandle<Saw>> = (0..readers)
            .map(|_| tokio::task::spawn_local(read(client.clone(), Rc::clone(&world))))
            .collect();
        until("all read", || world.open.get() == readers).await;
        let publishing = tokio::task::spawn_local(publish(client.clone(), Rc::clone(&world)));
        until("some are acked", || 20 < world.acked.borrow().len()).await;
        disturb(&world).await;
        until("all read again", || world.open.get() == readers).await;
        world.enough.set(true);
        let mut saw = Vec::new();
        for reader in reading {
            saw.push(tokio::time::timeout(LIMIT, reader).await.expect("the last").unwrap());
        }
        publishing.await.unwrap();
        saw
    });
    let acked = world.acked.take();
    for (reader, saw) in saw.iter().enumerate() {
        assert_eq!(saw.gaps, 0, "reader {reader} was told of a gap");
        assert_eq!(saw.data, acked, "reader {reader}");
    }
    let connections = saw.iter().map(|saw| saw.connections);
    eprintln!(
        "{} events to {readers} readers; {} to {} connections of each, {} refused; {} pushes again",
        acked.len(),
        connections.clone().min().unwrap(),
        connections.max().unwrap(),
        saw.iter().map(|saw| saw.refused).sum::<usize>(),
        world.again.get()
    );
    saw
}

/// The old workers' streams are cut after `worker_shutdown_timeout`.
#[test]
fn a_reload_of_nginx_loses_nothing() {
    let soon = [("worker_shutdown_timeout 60m;", "worker_shutdown_timeout 1s;")];
    let chain = Chain::start(&[], &[], &soon);
    let readers = 20;
    let saw = nobody_loses_anything(&chain.client, readers, async |world| {
        for nginx in [&chain.l7, &chain.l4] {
            let before = world.opened.get();
            nginx.reload();
            until("all came back", || before + readers <= world.opened.get()).await;
        }
    });
    assert!(saw.iter().all(|saw| 3 <= saw.connections), "each was cut twice");
}

fn gateway(port: u16, redis: &str, flags: &[&str]) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let open = ["--ops-listen", "off", "--push-auth", "none", "--read-auth", "anonymous"];
    let more = ["--backplane", redis, "--workers", "1", "--drain-timeout", "1 s"];
    Process::start(&mut stream_events(
        &[&["serve", "--listen", &listen], &open[..], &more, flags].concat(),
    ))
}

/// Each of two gateways is stopped by SIGTERM and started again, while the other goes on.
fn restart_one_by_one(client: &Http2, ports: [u16; 2], flags: &'static [&'static str]) -> Vec<Saw> {
    let redis = RedisServer::start();
    let url = redis.url();
    let start = move |port| {
        let gateway = gateway(port, &url, flags);
        gateway.listen();
        gateway
    };
    let mut gateways = ports.map(|port| Some(start(port)));
    let readers = 200;
    let saw = nobody_loses_anything(client, readers, async |world| {
        for (gateway, port) in gateways.iter_mut().zip(ports) {
            let (mut old, start) = (gateway.take().unwrap(), start.clone());
            // Not on the thread that reads.
            let restart = move || {
                old.signal(Signal::TERM);
                assert!(old.wait().0.success(), "it left in order");
                start(port)
            };
            *gateway = Some(tokio::task::spawn_blocking(restart).await.unwrap());
            until("all read again", || world.open.get() == readers).await;
        }
    });
    let moved = saw.iter().filter(|saw| 1 < saw.connections).count();
    assert!(readers / 2 < moved, "{moved} had to move");
    saw
}

#[test]
fn a_rolling_restart_behind_layer_7_loses_nothing() {
    let ports = [free_port(), free_port()];
    let certificate = Certificate::new();
    let l7 = Nginx::l7(ports.map(at), &certificate, &[]);
    let client = Http2::new(l7.address, &certificate);
    let saw = restart_one_by_one(&client, ports, &["--trusted-proxies", "1"]);
    let refused = saw.iter().filter(|saw| 0 < saw.refused).count();
    assert_eq!(refused, 0, "nginx asks the other gateway at once");
}

/// Layer 4 sees connections, so it tells a gateway that is gone from one that is there by these alone.
#[test]
fn a_rolling_restart_behind_layers_7_and_4_loses_nothing() {
    let ports = [free_port(), free_port()];
    let certificate = Certificate::new();
    let l4 = Nginx::l4(ports.map(at), &[]);
    let l7 = Nginx::l7([l4.address; 2], &certificate, &[]);
    let flags = &["--trusted-proxies", "1", "--proxy-protocol", "on"];
    restart_one_by_one(&Http2::new(l7.address, &certificate), ports, flags);
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
