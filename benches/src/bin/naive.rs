//! What a user would write on actix-web: see [`stream_events_bench::naive`].

use std::net::SocketAddr;

use actix_web::{App, HttpServer, web};
use clap::Parser;
use stream_events_bench::{naive, socket::raise_file_limit};

#[derive(Parser)]
#[command(about = "A server of event streams as one would write it on actix-web")]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// With the `Sse` of actix-web-lab.
    #[arg(long)]
    lab: bool,
    /// Without the delay that small writes have by default.
    #[arg(long)]
    nodelay: bool,
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let Arguments { listen, workers, lab, nodelay } = Arguments::parse();
    raise_file_limit();
    let topics = web::Data::new(naive::TopicSet::default());
    let server = HttpServer::new(move || {
        let events =
            if lab { web::get().to(naive::events_lab) } else { web::get().to(naive::events) };
        App::new()
            .app_data(topics.clone())
            .route("/push/{topic}", web::post().to(naive::push))
            .route("/events", events)
    });
    let server = if nodelay { server.tcp_nodelay(true) } else { server };
    server.workers(workers).bind(listen)?.run().await
}
