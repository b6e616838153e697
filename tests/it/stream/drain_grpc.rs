//! Streams of gRPC in a drain: each is told to come back, spread over the drain.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Request};
use prost::Message as _;
use rustix::process::Signal;
use tokio::{net::TcpStream, task::JoinSet};

use crate::support::{
    block_on,
    grpc::{GrpcParser, SERVICE, framed, proto::SubscribeRequest, status_of},
    process::serve,
    reader::Signal as Seen,
};

const CONNECTIONS: usize = 10;
const STREAMS: usize = 50;
const DRAIN: Duration = Duration::from_secs(3);
const UNAVAILABLE: u8 = 14;

/// Opens a stream. Returns it after its first record.
async fn subscribe(send: SendRequest<Bytes>, uri: &str) -> (RecvStream, GrpcParser) {
    let asked = SubscribeRequest { topics: vec!["orders".to_owned()], ..Default::default() };
    let request = Request::post(uri).header("content-type", "application/grpc").body(()).unwrap();
    let mut send = send.ready().await.unwrap();
    let (answer, mut out) = send.send_request(request, false).unwrap();
    out.send_data(framed(&asked.encode_to_vec()), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut parser = GrpcParser::default();
    let first = body.data().await.unwrap().unwrap();
    assert_eq!(parser.feed(&first).len(), 1);
    (body, parser)
}

/// Reads a stream to its end. Returns its last record and its trailers.
async fn end(mut body: RecvStream, mut parser: GrpcParser) -> (String, HeaderMap) {
    let mut last = BytesMut::new();
    while let Some(data) = body.data().await {
        last.extend_from_slice(&data.unwrap());
    }
    let Some(Seen::Event(event)) = parser.feed(&last).pop() else { panic!("no end") };
    assert_eq!(event.event, "stream-end");
    (event.data, body.trailers().await.unwrap().unwrap())
}

#[test]
fn a_drain_ends_five_hundred_streams_at_different_times() {
    let (mut process, address) = serve(&["--drain-delay", "0 s", "--drain-timeout", "3 s"]);
    let uri = format!("http://{address}{SERVICE}Subscribe");
    let ends: Vec<_> = block_on(async {
        let mut all = JoinSet::new();
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let socket = TcpStream::connect(address).await.unwrap();
            let (send, connection) = h2::client::handshake(socket).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            for _ in 0..STREAMS {
                streams.push(subscribe(send.clone(), &uri).await);
            }
        }
        process.signal(Signal::TERM);
        let start = Instant::now();
        for (body, parser) in streams {
            all.spawn(async move { (end(body, parser).await, start.elapsed()) });
        }
        all.join_all().await
    });
    assert_eq!(ends.len(), CONNECTIONS * STREAMS);
    let mut waits = BTreeSet::new();
    for ((data, trailers), _) in &ends {
        let end: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(end["reason"], "draining");
        assert_eq!(status_of(trailers).unwrap().0, UNAVAILABLE);
        let wait = trailers["grpc-retry-pushback-ms"].to_str().unwrap();
        assert_eq!(wait, end["retry"].to_string());
        waits.insert(wait.to_owned());
    }
    assert!(100 < waits.len(), "{waits:?}");
    let times = ends.iter().map(|(_, time)| *time);
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    let over = last.saturating_sub(first);
    assert!(DRAIN / 2 < over && last < DRAIN + Duration::from_secs(1), "{first:?}..{last:?}");
    assert_eq!(process.wait().0.code(), Some(0));
    eprintln!("{} streams within {:?}, {} times to wait", ends.len(), over, waits.len());
}
