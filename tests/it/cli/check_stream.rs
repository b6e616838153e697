//! `stream-events check` of streams that proxies hold back, compress, cut or begin anew.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::check_gateway::{Findings, check, open_gateway};
use crate::support::{gateway::Gateway, haproxy::Haproxy, nginx::Nginx};

/// Checks what is at an address, and watches it for this long.
fn watched(address: SocketAddr, watch: &str) -> Findings {
    check(&[&address.to_string(), "--watch", watch])
}

#[test]
fn a_buffering_nginx_is_found() {
    let gateway = open_gateway(&[]);
    let ignores = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    let nginx = Nginx::plain(&[gateway.address], ignores, None);
    let found = watched(nginx.address, "1 s");
    found.problem(
        "buffering",
        "nothing of the stream within 10 s",
        ("nginx", "proxy_buffering off;"),
    );
    for check in ["compression", "resume", "keep-alive", "cut"] {
        assert_eq!(found.result(check), "not checked", "{found:?}");
    }
    // Without `proxy_ignore_headers` nginx obeys the gateway and does not buffer.
    let nginx = Nginx::plain(&[gateway.address], "", None);
    assert_eq!(watched(nginx.address, "1 s").problems(), [""; 0]);
}

#[test]
fn a_cut_by_nginx_is_found() {
    let gateway = open_gateway(&[]);
    let nginx = Nginx::plain(&[gateway.address], "proxy_read_timeout 2s;", None);
    let found = watched(nginx.address, "10 s");
    found.problem("cut", "the stream was cut after ", ("nginx", "proxy_read_timeout 60s;"));
    let text = found.text("cut");
    let (_, after) = text.split_once("was cut after ").unwrap();
    let seconds: f64 = after.split(' ').next().unwrap().parse().unwrap();
    assert!(1.9 <= seconds, "{text}");
    assert_eq!(found.problems(), ["cut"]);
    // A keep-alive each second keeps the stream open.
    let gateway = open_gateway(&[("keep-alive", "1 s")]);
    let nginx = Nginx::plain(&[gateway.address], "proxy_read_timeout 5s;", None);
    assert_eq!(watched(nginx.address, "7 s").problems(), [""; 0]);
}

#[test]
fn a_cut_by_haproxy_is_found() {
    let gateway = open_gateway(&[]);
    let haproxy = Haproxy::start(gateway.address, " timeout client 2s\n timeout server 2s");
    let found = watched(haproxy.address, "10 s");
    found.problem("cut", "s after its last byte", ("HAProxy", "timeout server 60s"));
    // The defaults of HAProxy do not limit silence.
    let haproxy = Haproxy::start(gateway.address, "");
    assert_eq!(watched(haproxy.address, "3 s").problems(), [""; 0]);
}

/// The proxy limits the whole answer, as the backend timeout of Google's load balancers does.
#[test]
fn a_cut_in_the_middle_of_keep_alives_is_found() {
    let gateway = open_gateway(&[("keep-alive", "1 s")]);
    let address = cutting_proxy(gateway.address, Duration::from_secs(4));
    let found = watched(address, "10 s");
    found.problem("cut", "was cut after ", ("Google's load balancers", "timeoutSec: 3600"));
}

/// Passes connections on, and closes each after `limit`.
fn cutting_proxy(to: SocketAddr, limit: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            for (from, into) in [(&client, &server), (&server, &client)] {
                let (mut from, mut into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                std::thread::spawn(move || io::copy(&mut from, &mut into).ok());
            }
            std::thread::spawn(move || {
                std::thread::sleep(limit);
                client.shutdown(Shutdown::Both).ok();
                server.shutdown(Shutdown::Both).ok();
            });
        }
    });
    address
}

#[test]
fn the_end_of_a_stream_that_the_gateway_ends_is_no_cut() {
    let gateway = open_gateway(&[("stream-age-max", "4 s")]);
    let found = watched(gateway.address, "10 s");
    assert_eq!(found.result("cut"), "ok", "{found:?}");
    assert!(found.text("cut").contains("max-age"), "{found:?}");
    // Many events in few parts come before the end.
    let gateway = Gateway::dev(&[("stream-age-max", "4 s")]);
    for n in 0..20 {
        gateway.publish("orders", n.to_string());
    }
    let url = format!("{}/events?since=1h&filter=NOT%20attributes:none", gateway.address);
    let found = check(&[&url, "--watch", "10 s"]);
    assert!(found.text("cut").contains("max-age"), "{found:?}");
}

#[test]
fn a_compressing_nginx_is_found() {
    let gateway = open_gateway(&[]);
    let gzip = "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;";
    let nginx = Nginx::plain(&[gateway.address], gzip, None);
    let found = watched(nginx.address, "1 s");
    found.problem("compression", "(gzip)", ("nginx", "gzip_types without text/event-stream"));
    assert_eq!(found.problems(), ["compression"]);
}

#[test]
fn a_lost_last_event_id_is_found() {
    let gateway = open_gateway(&[]);
    let drops = "proxy_set_header Last-Event-ID \"\";";
    let nginx = Nginx::plain(&[gateway.address], drops, None);
    let found = watched(nginx.address, "1 s");
    found.problem(
        "resume",
        "did not reach the gateway",
        ("nginx", "proxy_pass_request_headers on"),
    );
    assert_eq!(found.problems(), ["resume"]);
}

#[test]
fn gateways_with_logs_of_their_own_behind_one_address_are_found() {
    let gateways = [open_gateway(&[]), open_gateway(&[])];
    let addresses = gateways.each_ref().map(|gateway: &Gateway| gateway.address);
    let nginx = Nginx::plain(&addresses, "", None);
    let found = watched(nginx.address, "1 s");
    found.problem("resume", "reached another gateway", ("gateway", "--backplane redis://"));
    assert_eq!(found.problems(), ["resume"]);
}
